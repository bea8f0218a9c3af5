/** The same answers whichever way the sums go, and what is there when a pair shares no memory. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { get } from "../harness/http.js";
import { valueOf } from "../harness/prometheus.js";

const goldens = await readGoldens();
const requests = await Promise.all(goldens.slice(0, 4).map(requestOf));

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "tessera-shm-"));
  after(() => rm(path, { recursive: true }));
  return path;
}

/** Answers at once, and with how many peers each worker shares memory. */
async function answers(workers: number, options: Parameters<typeof serve>[1] = {}) {
  const served = await serve(workers, { ...options, healthPort: 0 });
  try {
    const all = await Promise.all(requests.map((request) => served.client.generateOnce(request)));
    const pages = served.cluster.workerHealth().map((health) => get(health, "/metrics"));
    const peers = (await Promise.all(pages)).map(({ text }) =>
      valueOf(text, "tessera_worker_shared_memory_peers"),
    );
    return { answers: all.map(essence), peers };
  } finally {
    await served.stop();
  }
}

const alone = await answers(1);

const ways: [string, number, () => Promise<Parameters<typeof serve>[1]>, number[]][] = [
  ["shared memory", 2, () => Promise.resolve({ transport: "shm" }), [1, 1]],
  ["gRPC", 2, () => Promise.resolve({ transport: "grpc" }), [0, 0]],
  [
    "what they prove, with folders of their own",
    2,
    async () => {
      const folders = [await folder(), await folder()];
      return { environment: (rank) => ({ TESSERA_SHM_DIR: folders[rank] ?? "" }) };
    },
    [0, 0],
  ],
  [
    "what they prove, rank 1 told to use gRPC",
    4,
    () =>
      Promise.resolve({
        environment: (rank) => ({ TESSERA_TRANSPORT: rank === 1 ? "grpc" : "auto" }),
      }),
    [2, 0, 2, 2],
  ],
  [
    "shared memory, the encoder cut over them",
    4,
    () => Promise.resolve({ transport: "shm", flags: { vision: "tensor" } }),
    [3, 3, 3, 3],
  ],
];
for (const [name, workers, options, peers] of ways)
  test(`${workers} workers by ${name}: the bits of one worker`, async () => {
    assert.deepEqual(await answers(workers, await options()), {
      answers: alone.answers,
      peers,
    });
  });

test("a cluster that runs has no file of shared memory; workers that are killed leave none", async () => {
  const dir = await folder();
  const served = await serve(2, { environment: () => ({ TESSERA_SHM_DIR: dir }) });
  try {
    assert.deepEqual(await readdir(dir), []);
    for (const pid of served.cluster.workerPids()) process.kill(pid, "SIGKILL");
  } finally {
    await served.stop();
  }
  assert.deepEqual(await readdir(dir), []);
});

test("--transport shm where memory is not shared: the start ends instead of waiting", async () => {
  const folders = [await folder(), await folder()];
  const environment = (rank: number) => ({ TESSERA_SHM_DIR: folders[rank] ?? "" });
  await assert.rejects(
    serve(2, { transport: "shm", environment }),
    /coordinator: ended with 1 before it was ready/,
  );
});
