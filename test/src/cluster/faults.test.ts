/** A worker that is killed, and one that is stopped. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TesseraError } from "@tessera/client";
import { GroupState } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { essence, readGoldens, requestOf, serve, type Served } from "../harness/cluster.js";

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

/** Streams until the first text, calls `strike`, and returns the error and how long it took. */
async function struck(
  served: Served,
  strike: () => void,
): Promise<{ error: TesseraError; ms: number }> {
  let start = 0;
  try {
    for await (const { kind } of served.client.generate(endless))
      if (kind.case === "delta" && start === 0) {
        start = Date.now();
        strike();
      }
  } catch (error) {
    return { error: TesseraError.from(error), ms: Date.now() - start };
  }
  return assert.fail("the stream did not fail");
}

test("kill -9 of a worker: open streams end within 5 s naming the rank; the group forms again", async () => {
  const served = await serve(2);
  try {
    const before = essence(await served.client.generateOnce(short));
    const [, pid] = served.cluster.workerPids();
    const { error, ms } = await struck(served, () => process.kill(pid ?? 0, "SIGKILL"));
    assert.equal(error.grpcStatus, 14, error.message);
    assert.match(error.message, /rank 1/);
    assert.ok(ms < 5000, `${ms} ms`);
    assert.ok((await untilReady(served, 1n)) > 1n);
    assert.deepEqual(essence(await served.client.generateOnce(short)), before);
  } finally {
    await served.stop();
  }
});

test("SIGSTOP of a worker: the step deadline names it", async () => {
  const served = await serve(2, { flags: { stepDeadlineMs: 1500 } });
  const [, pid] = served.cluster.workerPids();
  try {
    const { error } = await struck(served, () => process.kill(pid ?? 0, "SIGSTOP"));
    assert.equal(error.grpcStatus, 14, error.message);
    assert.match(error.message, /rank 1/);
  } finally {
    process.kill(pid ?? 0, "SIGCONT");
    await served.stop();
  }
});
