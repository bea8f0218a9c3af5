/**
 * What a rank does to logits before sampling, and its noise, against a plain reading of docs/exactness.md
 * (Sampling): bias, then penalties, then masks, over the temperature; every value to the bit, noise to rounding.
 */
import { GREEDY } from "@tessera/native/engine";
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { openModel } from "@tessera/model";
import type { Engine, LaneResult, SamplingSpec } from "@tessera/native/engine";
import { closeGroup, openGroup } from "../harness/engines.js";
import { root } from "../harness/paths.js";

const { config } = await openModel(root("models/nvlm-d-tiny"));
const VOCABULARY = config.decoder.vocabularySize;
/** Ids from here on belong to no token. */
const SELECTABLE = VOCABULARY - 10;
const options = { size: 2, kvType: "f32" as const, selectableIds: SELECTABLE, maxModelLen: 256 };
const engines: Engine[] = await openGroup(root("models/nvlm-d-tiny"), options);
after(() => closeGroup(engines));

const PROMPT = [70, 71, 72, 70, 75];
/** Given to the ranks as if it had been sampled; 71 is in the prompt too. */
const ANSWER = [80, 71, 80, 90];
let stepId = 0n;
let sequenceId = 0n;

/** Candidates of the row behind prompt and answer, best first, all that may be chosen. */
async function candidates(sampling: SamplingSpec): Promise<LaneResult[]> {
  sequenceId++;
  const lanes: LaneResult[][] = [];
  for (const [start, tokenIds] of [
    [0, PROMPT],
    [PROMPT.length, ANSWER],
  ] as const) {
    stepId++;
    const open = { sequenceId, promptLength: PROMPT.length, tokenIds: [], sampling };
    const row = { row: tokenIds.length - 1, candidates: VOCABULARY, topLogprobs: 0, logprob: true };
    const plan = {
      epoch: 1n,
      stepId,
      releasedStep: stepId - 1n,
      deadlineMs: 20_000,
      opened: start === 0 ? [open] : [],
      closedSequenceIds: start === 0 && sequenceId > 1n ? [sequenceId - 1n] : [],
      releasedEmbeddingIds: [],
      slices: [
        {
          sequenceId,
          startPosition: start,
          tokenIds,
          firstBlock: 0,
          blockIds: [0],
          imageRows: [],
          wanted: [{ ...row, scoredTokenIds: [] }],
        },
      ],
    };
    const outcomes = await Promise.all(engines.map((engine) => engine.step(plan)));
    lanes.push(outcomes.flatMap((outcome) => outcome.rows.flatMap((result) => result.lanes)));
  }
  return lanes.at(-1) ?? [];
}

const byId = (lanes: LaneResult[]) =>
  new Map(lanes.flatMap((lane) => lane.candidates).map((one) => [one.tokenId, one] as const));
const f = Math.fround;

/** The processed logit over the temperature; undefined for an id that may not be chosen. */
function expected(id: number, raw: number, sampling: SamplingSpec): number | undefined {
  const bias = sampling.logitBias.find(({ tokenId }) => tokenId === id)?.bias;
  let value = bias === undefined ? raw : f(raw + f(bias));
  const times = ANSWER.filter((token) => token === id).length;
  const r = f(sampling.repetitionPenalty);
  if (r !== 1 && (times > 0 || PROMPT.includes(id)))
    value = value > 0 ? f(value / r) : f(value * r);
  if (times > 0) {
    value = f(value - f(f(sampling.frequencyPenalty) * times));
    value = f(value - f(sampling.presencePenalty));
  }
  const allowed = sampling.allowedTokenIds;
  const early = ANSWER.length < sampling.minTokens && sampling.suppressedTokenIds.includes(id);
  const bad = sampling.badWords.some((word) => {
    const before = word.slice(0, -1);
    const tail = before.length === 0 ? [] : ANSWER.slice(-before.length);
    return word.at(-1) === id && tail.join() === before.join();
  });
  if (early || bad || id >= SELECTABLE) return undefined;
  if (allowed.length > 0 && !allowed.includes(id)) return undefined;
  return f(value / f(sampling.temperature));
}

const raw = byId(await candidates({ ...GREEDY, temperature: 1 }));
const base = { ...GREEDY, temperature: 1 };
const cases: [string, Partial<SamplingSpec>][] = [
  ["nothing but a temperature of 1", {}],
  ["a temperature of 0.7", { temperature: 0.7 }],
  [
    "a bias",
    {
      logitBias: [
        { tokenId: 70, bias: 3.3 },
        { tokenId: 500, bias: -100 },
      ],
    },
  ],
  ["a repetition penalty, of prompt and answer", { repetitionPenalty: 1.3 }],
  ["a repetition penalty below 1", { repetitionPenalty: 0.8 }],
  ["a presence penalty, of the answer only", { presencePenalty: 0.7 }],
  ["a frequency penalty, of the answer only, by count", { frequencyPenalty: -0.45 }],
  [
    "bias, then every penalty, over a temperature",
    {
      logitBias: [
        { tokenId: 80, bias: -7.7 },
        { tokenId: 71, bias: 0.1 },
      ],
      repetitionPenalty: 1.7,
      presencePenalty: 0.3,
      frequencyPenalty: 0.6,
      temperature: 1.9,
    },
  ],
  ["allowed ids, in any order and twice", { allowedTokenIds: [900, 70, 5, 70] }],
  ["stop ids before min_tokens", { minTokens: 5, suppressedTokenIds: [1, 2, 90] }],
  ["stop ids from min_tokens on", { minTokens: 4, suppressedTokenIds: [1, 2, 90] }],
  [
    "bad words of one, two and three tokens",
    { badWords: [[33], [90, 44], [80, 90, 45], [80, 46]] },
  ],
];
for (const [name, change] of cases)
  test(`processed logits: ${name}`, async () => {
    const sampling = { ...base, ...change };
    const got = byId(await candidates(sampling));
    const want = [...raw].flatMap(([id, one]): [number, number][] => {
      const value = expected(id, one.raw, sampling);
      return value === undefined ? [] : [[id, value]];
    });
    const inOrder = (list: [number, number][]) => list.sort(([a], [b]) => a - b);
    assert.deepEqual(inOrder([...got].map(([id, { scaled }]) => [id, scaled])), inOrder(want));
    for (const [id, one] of got) assert.equal(one.raw, raw.get(id)?.raw, "raw logits stay");
  });

test("candidates: every id of the tokenizer, none beyond, best first, the lowest id among equals", async () => {
  assert.equal(raw.size, SELECTABLE);
  const lanes = await candidates(base);
  assert.equal(lanes.length, 8);
  for (const { candidates: list } of lanes) {
    const order = [...list].sort((a, b) => b.scaled - a.scaled || a.tokenId - b.tokenId);
    assert.deepEqual(list, order);
  }
});

/** Philox4x32-10. */
function philox(counter: number[], key: bigint): number[] {
  let [c0 = 0n, c1 = 0n, c2 = 0n, c3 = 0n] = counter.map(BigInt);
  const low = 0xffffffffn;
  let [k0, k1] = [key & low, key >> 32n];
  for (let round = 0; round < 10; round++) {
    const [a, b] = [0xd2511f53n * c0, 0xcd9e8d57n * c2];
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & low, (a >> 32n) ^ c3 ^ k1, a & low];
    k0 = (k0 + 0x9e3779b9n) & low;
    k1 = (k1 + 0xbb67ae85n) & low;
  }
  return [c0, c1, c2, c3].map(Number);
}

test("philox: the published vectors", () => {
  const hex = (words: number[]) =>
    words.map((word) => word.toString(16).padStart(8, "0")).join(" ");
  const ones = Array<number>(4).fill(0xffffffff);
  assert.equal(hex(philox([0, 0, 0, 0], 0n)), "6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  assert.equal(hex(philox(ones, 2n ** 64n - 1n)), "408f276d 41c83b0e a20bc7c6 6d5451fd");
});

test("noise: −log(−log u) of Philox words by seed, id, place in the answer and choice", async () => {
  for (const [seed, choice] of [
    [0n, 0],
    [2n ** 64n - 3n, 2],
  ] as const) {
    const got = byId(await candidates({ ...base, seed, choice }));
    for (const [id, { noise }] of got) {
      const words = philox([Math.floor(id / 4), ANSWER.length, choice, 0], seed);
      const u = ((words[id % 4] ?? 0) >>> 9) * 2 ** -23 + 2 ** -24;
      const want = -Math.log(-Math.log(u));
      // Two f32 logarithms of a few units in the last place each; near u = 1 the inner one is small.
      const slack = 4e-7 * (1 + Math.abs(want)) + 4e-7 / -Math.log(u);
      assert.ok(Math.abs(noise - want) <= slack, `id ${id}: ${noise} for ${want}`);
    }
  }
});

test("noise: greedy has none", async () => {
  for (const { noise } of byId(await candidates(GREEDY)).values()) assert.equal(noise, 0);
});
