/**
 * The same bits of each variant at every width, kind of CPU, number of threads, chunk, type of cache and of weights,
 * with and without prefix cache, place of the vision encoder and transport: every pair of these, or every combination
 * with TESSERA_FULL.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { KV_TYPES, type KvType } from "@tessera/model";
import { cpuKind } from "@tessera/native/engine";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { combinations, pairwise, type Factors } from "../harness/pairwise.js";

interface Case {
  variant: "d" | "x" | "h";
  /** `apart`: on a worker of its own. */
  vision: "replicate" | "tensor" | "apart";
  workers: number;
  /** Of rank i: the (i mod length)-th. */
  kinds: string[];
  threads: number;
  /** Tokens of a step. */
  chunk: number;
  kv: KvType;
  prefixCache: boolean;
  weights: "bf16" | "int8" | "int4";
  /** `both`: rank 1 by gRPC, the others through shared memory. */
  transport: "shm" | "grpc" | "both";
}

const KINDS = ["scalar", "avx2", "avx512"];
/** Those that this machine has. */
const here = KINDS.slice(0, KINDS.indexOf(cpuKind()) + 1);
const mixed = here.slice(1).map((kind) => [kind, "scalar"]);
const factors: Factors<Case> = {
  variant: ["d", "x", "h"],
  vision: ["replicate", "tensor", "apart"],
  workers: [1, 2, 4, 8],
  kinds: [...here.map((kind) => [kind]), ...mixed],
  threads: [1, 2],
  chunk: [33, 100, 2048],
  kv: KV_TYPES,
  prefixCache: [true, false],
  weights: ["bf16", "int8", "int4"],
  transport: ["shm", "grpc", "both"],
};
/** A group of one is neither mixed nor cut, and one of two has one pair. */
const possible = ({ workers, kinds, vision, transport }: Case) =>
  workers >= kinds.length &&
  (workers > 1 || (vision !== "tensor" && transport === "shm")) &&
  (workers > 2 || transport !== "both");
const full = process.env["TESSERA_FULL"] !== undefined;
const cases = full ? combinations(factors, possible) : pairwise(factors, possible);

const modelOf = (variant: Case["variant"]) => `nvlm-${variant}-tiny`;
const goldensOf = new Map(
  await Promise.all(
    factors.variant.map(
      async (variant) => [variant, await readGoldens(`${modelOf(variant)}.json`)] as const,
    ),
  ),
);

/** All goldens, and again as many as make 32 at once: each has 31 others beside it. */
function requestsOf(variant: Case["variant"]) {
  const goldens = goldensOf.get(variant) ?? [];
  return Promise.all([...goldens, ...goldens].slice(0, 32).map(requestOf));
}

function visionFlags(vision: Case["vision"]) {
  return vision === "apart" ? { visionWorkers: 1 } : { vision };
}

function transportOf({ transport }: Case, rank: number): string {
  if (transport === "both") return rank === 1 ? "grpc" : "auto";
  return transport;
}

async function answers(one: Case) {
  const requests = await requestsOf(one.variant);
  const served = await serve(one.workers, {
    model: modelOf(one.variant),
    threads: one.threads,
    flags: {
      kv: one.kv,
      weights: one.weights,
      maxBatchedTokens: one.chunk,
      prefixCache: one.prefixCache,
      ...visionFlags(one.vision),
    },
    environment: (rank) => ({
      TESSERA_CPU: one.kinds[rank % one.kinds.length] ?? "scalar",
      TESSERA_TRANSPORT: transportOf(one, rank),
    }),
  });
  try {
    const { ranks } = await served.client.getCluster();
    const kinds = ranks.map(({ cpu }) => cpu);
    assert.deepEqual(
      kinds,
      ranks.map((_, rank) => one.kinds[rank % one.kinds.length]),
    );
    const all = await Promise.all(requests.map((request) => served.client.generateOnce(request)));
    return all.map((answer) => ({
      promptIds: answer.started?.promptTokenIds,
      choices: essence(answer),
    }));
  } finally {
    await served.stop();
  }
}

type Answers = Awaited<ReturnType<typeof answers>>;
/** One scalar worker, one thread, whole prompts, of each variant and type of cache and weights. */
const references = new Map<string, Answers>();
const plain = {
  workers: 1,
  kinds: ["scalar"],
  threads: 1,
  chunk: 2048,
  prefixCache: false,
  transport: "shm" as const,
};
for (const variant of factors.variant)
  for (const kv of factors.kv)
    for (const weights of factors.weights) {
      const one: Case = { ...plain, vision: "replicate", variant, kv, weights };
      references.set(`${variant} ${kv} ${weights}`, await answers(one));
    }
const referenceOf = ({ variant, kv, weights }: Pick<Case, "variant" | "kv" | "weights">) =>
  references.get(`${variant} ${kv} ${weights}`) ?? assert.fail();

for (const variant of factors.variant) {
  const goldens = goldensOf.get(variant) ?? [];

  test(`${modelOf(variant)}, scalar, one worker: prompt and greedy ids are the oracle's, log-probabilities within 2e-3`, () => {
    assert.ok(goldens.length >= 17);
    const got = referenceOf({ variant, kv: "f32", weights: "bf16" });
    goldens.forEach((golden, i) => {
      assert.deepEqual(got[i]?.promptIds, golden.prompt_ids, golden.name);
      const [choice] = got[i]?.choices ?? [];
      assert.deepEqual(choice?.tokenIds, golden.greedy_ids, golden.name);
      golden.logprobs.forEach((logprob, k) => {
        const near = Number(choice?.logprobs[k]?.[1] ?? NaN);
        assert.ok(Math.abs(near - logprob) < 2e-3, golden.name);
      });
    });
  });

  test(`${modelOf(variant)}, one worker: each answer is the one its twin among the 32 has`, () => {
    for (const kv of factors.kv)
      for (const weights of factors.weights) {
        const all = referenceOf({ variant, kv, weights });
        assert.deepEqual(all.slice(goldens.length), all.slice(0, 32 - goldens.length));
      }
  });
}

function nameOf({
  variant,
  workers,
  kinds,
  threads,
  chunk,
  kv,
  weights,
  vision,
  ...one
}: Case): string {
  const where = `${workers} workers, ${kinds.join("+")}, ${threads} threads`;
  const cache = `cache ${kv}, weights ${weights}, ${one.prefixCache ? "with" : "without"} prefix cache`;
  const rest = `encoder ${vision}, ${one.transport}`;
  return `${modelOf(variant)}, ${where}, chunks of ${chunk}, ${cache}, ${rest}`;
}

for (const one of cases)
  test(`${nameOf(one)}: the same bits`, async () => {
    assert.deepEqual(await answers(one), referenceOf(one));
  });
