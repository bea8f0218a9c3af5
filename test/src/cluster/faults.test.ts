/** A worker that is killed, and one that is stopped. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { TesseraError } from "@tessera/client";
import { GroupState } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { essence, requestOf, serve, type Served } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { get } from "../harness/http.js";
import { valueOf } from "../harness/prometheus.js";

const goldens = await readGoldens();
const short = await requestOf(goldens[0] ?? assert.fail());
const endless = { ...short, maxTokens: 3500, minTokens: 3500 };

async function untilReady({ client }: Served, above: bigint): Promise<bigint> {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const { state, epoch } = await client.getCluster();
    if (state === GroupState.READY && epoch > above) return epoch;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return assert.fail("the group did not form again");
}

const STREAMS = 6;

/** Several streams; when each has its first text, calls `strike`. → how each ended, and how long after. */
async function struck(
  served: Served,
  strike: () => void,
): Promise<{ error: TesseraError; ms: number }[]> {
  let texts = 0;
  let start = 0;
  const one = async () => {
    let first = true;
    try {
      for await (const { kind } of served.client.generate(endless)) {
        if (kind.case !== "delta" || !first) continue;
        first = false;
        if (++texts < STREAMS) continue;
        start = Date.now();
        strike();
      }
    } catch (error) {
      return { error: TesseraError.from(error), ms: Date.now() - start };
    }
    return assert.fail("the stream did not fail");
  };
  return Promise.all(Array.from({ length: STREAMS }, one));
}

function assertNamed(ends: { error: TesseraError }[], rank: RegExp): void {
  assert.equal(ends.length, STREAMS);
  for (const { error } of ends) {
    assert.equal(error.grpcStatus, status.UNAVAILABLE, error.message);
    assert.match(error.message, rank);
  }
}

/** Peers of each worker that it shares memory with. */
async function sharedPeers({ cluster }: Served): Promise<number[]> {
  const pages = cluster.workerHealth().map((health) => get(health, "/metrics"));
  return (await Promise.all(pages)).map(({ text }) =>
    valueOf(text, "tessera_worker_shared_memory_peers"),
  );
}

const transports = [
  ["shm", [1, 1]],
  ["grpc", [0, 0]],
] as const;
for (const [transport, peers] of transports)
  test(`kill -9 of a worker, ${transport}: every open stream ends within 5 s naming the rank; not ready, then formed again`, async () => {
    const served = await serve(2, { transport, healthPort: 0 });
    try {
      assert.deepEqual(await sharedPeers(served), peers);
      const before = essence(await served.client.generateOnce(short));
      const [, pid] = served.cluster.workerPids();
      const ends = await struck(served, () => process.kill(pid ?? 0, "SIGKILL"));
      const { state, epoch } = await served.client.getCluster();
      assertNamed(ends, /rank 1/);
      for (const { ms } of ends) assert.ok(ms < 5000, `${ms} ms`);
      // Whoever asks late finds the next group.
      assert.ok(state === GroupState.LOST || epoch > 1n, `state ${state}, epoch ${epoch}`);
      assert.ok((await untilReady(served, 1n)) > 1n);
      assert.deepEqual(essence(await served.client.generateOnce(short)), before);
      assert.deepEqual(await sharedPeers(served), peers);
    } finally {
      await served.stop();
    }
  });

for (const [transport] of transports)
  test(`SIGSTOP of a worker, ${transport}: the step deadline names it`, async () => {
    const served = await serve(2, { transport, flags: { stepDeadlineMs: 1500 } });
    const [, pid] = served.cluster.workerPids();
    try {
      assertNamed(await struck(served, () => process.kill(pid ?? 0, "SIGSTOP")), /rank 1/);
    } finally {
      process.kill(pid ?? 0, "SIGCONT");
      await served.stop();
    }
  });
