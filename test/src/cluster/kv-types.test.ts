/**
 * The int8 cache in whole clusters: with hardly any blocks, steps of few tokens, a prefix cache, several choices and
 * mixed kinds of CPU, answers are those of one worker with room, each request alone and nothing kept.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import { openModel, planPlacement } from "@tessera/model";
import { cpuKind } from "@tessera/native/engine";
import { essence, requestOf, serve, type Served } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { root } from "../harness/paths.js";
import { valueOf } from "../harness/prometheus.js";

const MAX_MODEL_LEN = 1024;
const GOLDENS = 6;
const kv = "int8";
/** Steps of so many tokens, blocks of the cache beyond those of one sequence of the largest length. */
const WAYS = [
  { workers: 1, kinds: ["scalar"], maxBatchedTokens: 40, spare: 4 },
  { workers: 2, kinds: [cpuKind(), "scalar"], maxBatchedTokens: 97, spare: 8 },
  { workers: 4, kinds: [cpuKind()], maxBatchedTokens: 2048, spare: 2 },
];

/** Goldens, each greedy, and with three choices that are drawn. */
async function requestsOf(model: string): Promise<GenerateInput[]> {
  const goldens = await readGoldens(`${model}.json`);
  const greedy = await Promise.all(goldens.slice(0, GOLDENS).map(requestOf));
  const drawn = greedy.map((request, i) => ({
    ...request,
    n: 3,
    sampling: { temperature: 0.9, seed: BigInt(i), topK: 40 },
  }));
  return [...greedy, ...drawn];
}

async function metric({ cluster }: Served, name: string): Promise<number> {
  const answer = await fetch(`http://${cluster.health}/metrics`, {
    signal: AbortSignal.timeout(5000),
  });
  return valueOf(await answer.text(), name);
}

for (const variant of ["d", "x", "h"]) {
  const model = `nvlm-${variant}-tiny`;
  const { config } = await openModel(root(`models/${model}`));

  test(`${model}, int8: the same bits with little cache, in steps of few tokens, and from the prefix cache`, async () => {
    const requests = await requestsOf(model);
    const plain = await serve(1, {
      model,
      flags: { kv, maxModelLen: MAX_MODEL_LEN, prefixCache: false },
    });
    const alone: unknown[] = [];
    try {
      for (const request of requests)
        alone.push(essence(await plain.client.generateOnce(request)));
    } finally {
      await plain.stop();
    }
    for (const { workers, kinds, maxBatchedTokens, spare } of WAYS) {
      const plan = planPlacement(config, { size: workers, kvType: kv });
      const blocks = MAX_MODEL_LEN / 32 + spare;
      const cacheMemory = (blocks * 32 * plan.cacheBytesPerToken) / workers;
      const served = await serve(workers, {
        model,
        healthPort: 0,
        flags: { kv, maxModelLen: MAX_MODEL_LEN, maxBatchedTokens, cacheMemory },
        environment: (rank) => ({ TESSERA_CPU: kinds[rank % kinds.length] ?? "scalar" }),
      });
      try {
        const { placement } = await served.client.getCluster();
        assert.deepEqual([placement?.kvType, placement?.blockCount], [kv, blocks]);
        for (const round of ["first", "again"]) {
          const all = requests.map((request) => served.client.generateOnce(request));
          const got = (await Promise.all(all)).map(essence);
          assert.deepEqual(got, alone, `${workers} workers, ${round}`);
        }
        const preempted = await metric(served, "tessera_num_preemptions_total");
        const hits = await metric(served, "tessera_prefix_cache_hits_total");
        assert.ok(preempted > 0 && hits > 0, `${preempted} preemptions, ${hits} hits`);
      } finally {
        await served.stop();
      }
    }
  });
}
