/** More ranks than cores: whoever waits sleeps, and the ranks do not starve each other. */
import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";

const WORKERS = 8;
const TOKENS = 200;

const goldens = await readGoldens();
const short = await requestOf(goldens[0] ?? assert.fail());

/** One answer of TOKENS tokens, and what a token took; the first answer warms up. */
async function timed(transport: "shm" | "grpc") {
  const served = await serve(WORKERS, { transport });
  try {
    await served.client.generateOnce(short);
    const start = performance.now();
    const request = { ...short, maxTokens: TOKENS, minTokens: TOKENS };
    const answer = essence(await served.client.generateOnce(request));
    return { answer, msPerToken: (performance.now() - start) / TOKENS };
  } finally {
    await served.stop();
  }
}

test(`${WORKERS} workers on ${availableParallelism()} cores: the same bits, and through shared memory no later than by gRPC`, async () => {
  const [grpc, shm] = [await timed("grpc"), await timed("shm")];
  assert.deepEqual(shm.answer, grpc.answer);
  assert.ok(shm.msPerToken <= grpc.msPerToken, `${shm.msPerToken} ms, gRPC ${grpc.msPerToken}`);
});
