/**
 * The int8 cache in whole clusters: with hardly any blocks, steps of few tokens, a prefix cache, several choices and
 * mixed kinds of CPU, answers are those of one worker with room, each request alone and nothing kept.
 */
import assert from "node:assert/strict";
import type { GenerateInput } from "@tessera/client";
import { openModel, planPlacement } from "@tessera/model";
import { cpuKind } from "@tessera/native/engine";
import { essence, requestOf, serve, type Served } from "./cluster.js";
import { readGoldens } from "./goldens.js";
import { root } from "./paths.js";
import { valueOf } from "./prometheus.js";

const MAX_MODEL_LEN = 512;
const GOLDENS = 2;
/** Each of three choices grows by so many blocks: all that run do not fit to their ends. */
const GROWTH = 3 * 32;
const kv = "int8";

export interface LittleCache {
  workers: number;
  /** Kinds of CPU; of rank i: the (i mod length)-th. */
  kinds: string[];
  maxBatchedTokens: number;
  /** Blocks of the cache beyond those of one sequence of the largest length. */
  spare: number;
}
/** The best of this machine beside the plainest. */
export const MIXED: LittleCache = {
  workers: 2,
  kinds: [cpuKind(), "scalar"],
  maxBatchedTokens: 97,
  spare: 3,
};
export const LITTLE_CACHES: LittleCache[] = [
  { workers: 1, kinds: ["scalar"], maxBatchedTokens: 40, spare: 0 },
  MIXED,
  { workers: 4, kinds: [cpuKind()], maxBatchedTokens: 2048, spare: 2 },
];

/** Goldens, each greedy, and with three choices that are drawn. */
async function requestsOf(model: string): Promise<GenerateInput[]> {
  const goldens = await readGoldens(`${model}.json`);
  const greedy = await Promise.all(goldens.slice(0, GOLDENS).map(requestOf));
  const drawn = greedy.map((request, i) => ({
    ...request,
    n: 3,
    maxTokens: GROWTH,
    minTokens: GROWTH,
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

/** Each request alone on one worker that keeps nothing. */
async function answersAlone(model: string, requests: GenerateInput[]): Promise<unknown[]> {
  const flags = { kv, maxModelLen: MAX_MODEL_LEN, prefixCache: false } as const;
  const { client, stop } = await serve(1, { model, flags });
  try {
    const answers: unknown[] = [];
    for (const request of requests) answers.push(essence(await client.generateOnce(request)));
    return answers;
  } finally {
    await stop();
  }
}

/** All requests at once, twice: their answers are those alone, some were preempted, some found a prefix. */
async function assertSame(
  model: string,
  requests: GenerateInput[],
  { alone, way }: { alone: unknown[]; way: LittleCache },
): Promise<void> {
  const { workers, kinds, maxBatchedTokens, spare } = way;
  const { config } = await openModel(root(`models/${model}`));
  const { cacheBytesPerToken } = planPlacement(config, { size: workers, kvType: kv });
  const blocks = MAX_MODEL_LEN / 32 + spare;
  const cacheMemory = (blocks * 32 * cacheBytesPerToken) / workers;
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
      assert.deepEqual(
        (await Promise.all(all)).map(essence),
        alone,
        `${workers} workers, ${round}`,
      );
    }
    const preempted = await metric(served, "tessera_num_preemptions_total");
    const hits = await metric(served, "tessera_prefix_cache_hits_total");
    assert.ok(preempted > 0 && hits > 0, `${preempted} preemptions, ${hits} hits`);
  } finally {
    await served.stop();
  }
}

/** @throws AssertionError when the answers of `ways` are not those of a worker with room to the bit. */
export async function assertLittleCaches(model: string, ways: LittleCache[]): Promise<void> {
  const requests = await requestsOf(model);
  const alone = await answersAlone(model, requests);
  for (const way of ways) await assertSame(model, requests, { alone, way });
}
