/** The vision encoder cut over the workers, or on workers of its own, in real clusters: the same bits as whole on each. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { tessera } from "../harness/command.js";
import { eventually } from "../harness/eventually.js";
import { readGoldens } from "../harness/goldens.js";
import { rankStats } from "../harness/shard-stats.js";

interface Way {
  workers: number;
  flags: { vision?: "tensor" | "replicate" | "auto"; visionWorkers?: number };
}

const WAYS: Way[] = [
  { workers: 2, flags: { vision: "tensor" } },
  { workers: 8, flags: { vision: "tensor" } },
  { workers: 1, flags: { visionWorkers: 2 } },
  { workers: 2, flags: { visionWorkers: 2 } },
];

async function answers(model: string, { workers, flags }: Way) {
  const requests = await Promise.all((await readGoldens(`${model}.json`)).map(requestOf));
  const { client, stop } = await serve(workers, { model, flags });
  try {
    const all = await Promise.all(requests.map((request) => client.generateOnce(request)));
    const { placement, load } = await client.getCluster();
    assert.deepEqual([load?.embeddings, load?.usedBlocks, load?.usedCrossBlocks], [0, 0, 0]);
    return { answers: all.map(essence), placement };
  } finally {
    await stop();
  }
}

for (const model of ["nvlm-d-tiny", "nvlm-x-tiny", "nvlm-h-tiny"]) {
  const whole = answers(model, { workers: 1, flags: { vision: "replicate" } });
  for (const way of WAYS)
    test(`${model}, ${way.workers} workers, ${JSON.stringify(way.flags)}: the same bits as one worker`, async () => {
      const got = await answers(model, way);
      assert.deepEqual(got.answers, (await whole).answers);
      const encoders = way.flags.visionWorkers ?? 0;
      assert.equal(got.placement?.vision, encoders > 0 ? "workers" : "tensor");
      const first = encoders > 0 ? way.workers : 0;
      const ranks = Array.from({ length: way.workers + encoders }, (_, rank) => rank);
      assert.deepEqual(got.placement?.encoderRanks, ranks.slice(first));
    });
}

test("a vision worker that dies is named, another takes its rank, and pictures are served again", async () => {
  const goldens = await readGoldens();
  const request = await requestOf(goldens.find(({ images }) => images.length > 0) ?? assert.fail());
  const { client, cluster, stop } = await serve(1, { flags: { visionWorkers: 1 } });
  try {
    const before = essence(await client.generateOnce(request));
    const { epoch } = await client.getCluster();
    process.kill(cluster.workerPids()[1] ?? assert.fail(), "SIGKILL");
    // Nothing is asked meanwhile: the loss is seen by itself.
    await eventually("a new epoch", async () => (await client.getCluster()).epoch > epoch);
    assert.deepEqual(essence(await client.generateOnce(request)), before);
    const [decoder, encoder] = await rankStats(client);
    assert.equal(encoder?.embeddings, 0);
    assert.ok((decoder?.embeddings ?? 0) > 0);
  } finally {
    await stop();
  }
});

const MODEL = ["--model", "models/nvlm-d-tiny", "--port", "0"];
const refused: [string, string[], RegExp][] = [
  [
    "a placement that there is not",
    ["--vision", "mirror"],
    /--vision <placement>.*'mirror' is invalid.*replicate, tensor, auto/,
  ],
  [
    "a placement beside vision workers",
    ["--vision", "tensor", "--vision-workers", "1"],
    /vision: tensor beside vision-workers 1, give one of them/,
  ],
  [
    "no vision worker",
    ["--vision-workers", "0"],
    /vision-workers: 0, must be a whole number above 0/,
  ],
  ["too many vision workers", ["--vision-workers", "65"], /vision-workers 65: must be 1…64/],
];
for (const [name, args, message] of refused)
  test(`up: ${name} is refused`, async () => {
    const { code, stderr } = await tessera(["up", ...MODEL, ...args]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
  });
