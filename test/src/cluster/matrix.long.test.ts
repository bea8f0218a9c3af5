/**
 * The same bits at every width, kind of CPU, number of threads, chunk and type of cache: every pair of these, or every
 * combination with TESSERA_FULL.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuKind } from "@tessera/native/engine";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { combinations, pairwise, type Factors } from "../harness/pairwise.js";

interface Case {
  workers: number;
  /** Of rank i: the (i mod length)-th. */
  kinds: string[];
  threads: number;
  /** Tokens of a step. */
  chunk: number;
  kv: "f32" | "bf16";
}

const KINDS = ["scalar", "avx2", "avx512"];
/** Those that this machine has. */
const here = KINDS.slice(0, KINDS.indexOf(cpuKind()) + 1);
const mixed = here.slice(1).map((kind) => [kind, "scalar"]);
const factors: Factors<Case> = {
  workers: [1, 2, 4, 8],
  kinds: [...here.map((kind) => [kind]), ...mixed],
  threads: [1, 2],
  chunk: [33, 100, 2048],
  kv: ["f32", "bf16"],
};
/** A group of one is not mixed. */
const possible = ({ workers, kinds }: Case) => workers >= kinds.length;
const full = process.env["TESSERA_FULL"] !== undefined;
const cases = full ? combinations(factors, possible) : pairwise(factors, possible);

const goldens = await readGoldens();
/** All goldens, and again as many as make 32 at once: each has 31 others beside it. */
const requests = await Promise.all([...goldens, ...goldens].slice(0, 32).map(requestOf));

async function answers(one: Case) {
  const served = await serve(one.workers, {
    threads: one.threads,
    flags: { kv: one.kv, maxBatchedTokens: one.chunk },
    environment: (rank) => ({ TESSERA_CPU: one.kinds[rank % one.kinds.length] ?? "scalar" }),
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

/** One worker, one thread, whole prompts, of each type of cache. */
const references = {
  f32: await answers({ workers: 1, kinds: ["scalar"], threads: 1, chunk: 2048, kv: "f32" }),
  bf16: await answers({ workers: 1, kinds: ["scalar"], threads: 1, chunk: 2048, kv: "bf16" }),
};

test("scalar, one worker: prompt and greedy ids are the oracle's, log-probabilities within 2e-3", () => {
  goldens.forEach((golden, i) => {
    assert.deepEqual(references.f32[i]?.promptIds, golden.prompt_ids, golden.name);
    const [choice] = references.f32[i]?.choices ?? [];
    assert.deepEqual(choice?.tokenIds, golden.greedy_ids, golden.name);
    golden.logprobs.forEach((logprob, k) => {
      const got = Number(choice?.logprobs[k]?.[1] ?? NaN);
      assert.ok(Math.abs(got - logprob) < 2e-3, golden.name);
    });
  });
});

test("one worker: each answer is the one its twin among the 32 has", () => {
  for (const answers of [references.f32, references.bf16])
    assert.deepEqual(answers.slice(goldens.length), answers.slice(0, 32 - goldens.length));
});

for (const one of cases) {
  const { workers, kinds, threads, chunk, kv } = one;
  const name = `${workers} workers, ${kinds.join("+")}, ${threads} threads, chunks of ${chunk}, ${kv}`;
  test(`${name}: the same bits`, async () => {
    assert.deepEqual(await answers(one), references[kv]);
  });
}
