/** NVLM-X and NVLM-H through real clusters: the oracle's tokens, and the same bits at every width, alone or among others. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateOnceResponse } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { assertLikeOracle, essence, requestOf, serve, type Served } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";

async function using<T>(served: Promise<Served>, work: (served: Served) => Promise<T>): Promise<T> {
  const cluster = await served;
  try {
    return await work(cluster);
  } finally {
    await cluster.stop();
  }
}

for (const variant of ["x", "h"]) {
  const model = `nvlm-${variant}-tiny`;
  const goldens = await readGoldens(`${model}.json`);
  const requests = await Promise.all(goldens.map(requestOf));
  const alone: GenerateOnceResponse[] = [];

  test(`${model}, 1 worker, each request alone: the oracle's tokens; nothing is held then`, () =>
    using(serve(1, { model }), async ({ client }) => {
      for (const request of requests) alone.push(await client.generateOnce(request));
      goldens.forEach((golden, i) => assertLikeOracle(alone[i], golden));
      const { load = assert.fail() } = await client.getCluster();
      const { usedBlocks, embeddings, usedCrossBlocks, idleCrossBlocks } = load;
      assert.deepEqual([usedBlocks, embeddings, usedCrossBlocks], [0, 0, 0]);
      assert.ok(idleCrossBlocks > 0);
    }));

  for (const [workers, maxBatchedTokens] of [
    [1, 7],
    [2, 2048],
    [4, 50],
    [8, 2048],
  ] as const)
    test(`${model}, ${workers} workers, steps of ${maxBatchedTokens} tokens, all requests together: the same bits`, () =>
      using(serve(workers, { model, flags: { maxBatchedTokens } }), async ({ client }) => {
        const all = await Promise.all(requests.map((request) => client.generateOnce(request)));
        assert.deepEqual(all.map(essence), alone.map(essence));
      }));
}
