/** Caches in bf16 and int8 through engines in one process: one answer at every width and chunk, near the f32 cache's. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { KvType } from "@tessera/model";
import { answersOf, type Answer } from "../harness/golden-runner.js";
import { readGoldens } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

const WAYS = [
  { size: 2, chunk: 17 },
  { size: 4, chunk: 1000 },
  { size: 1, chunk: 5 },
];

/** Of log-probabilities of the same tokens. */
function distances(a: Answer[], b: Answer[]): number[] {
  return a.flatMap(({ logprobs }, i) =>
    logprobs.map((value, k) => value - (b[i]?.logprobs[k] ?? NaN)),
  );
}

/**
 * To first order a log-probability moves by what the cache's elements move, in bf16 and int8 by the same factors. Rounding
 * to steps of s has an error of s/√12 in the square mean. An int8 head's step is max|x|/127, at most √16 of the head's
 * square mean/127 in heads of 16 values; a bf16 element's is above |x|/256.
 */
const ELEMENT_RATIO = (256 / 127) * Math.sqrt(16);

const rms = (values: number[]) => Math.hypot(...values) / Math.sqrt(values.length);

for (const variant of ["d", "x", "h"]) {
  const all = await readGoldens(`nvlm-${variant}-tiny.json`);
  const dir = root(`models/nvlm-${variant}-tiny`);
  const few = all.slice(0, 4);
  const whole = (kvType: KvType) => answersOf(all, dir, { size: 1, kvType, chunk: 1000 });
  const [wide, bf16, int8] = [await whole("f32"), await whole("bf16"), await whole("int8")];

  for (const [kvType, wanted] of [
    ["bf16", bf16],
    ["int8", int8],
  ] as const)
    for (const way of WAYS)
      test(`nvlm-${variant}-tiny, ${kvType}: ${way.size} ranks, chunks of ${way.chunk}: the same bits`, async () => {
        assert.deepEqual(await answersOf(few, dir, { ...way, kvType }), wanted.slice(0, 4));
      });

  test(`nvlm-${variant}-tiny: with bf16 and int8 caches greedy ids are the oracle's`, () => {
    const ids = all.map((golden) => golden.greedy_ids);
    for (const answers of [bf16, int8])
      assert.deepEqual(
        answers.map((answer) => answer.ids),
        ids,
      );
  });

  test(`nvlm-${variant}-tiny: int8 moves log-probabilities by no more than elements, by bf16`, () => {
    const near = rms(distances(bf16, wide));
    const far = rms(distances(int8, wide));
    assert.ok(near > 0 && far > 0 && far < ELEMENT_RATIO * near, `int8 ${far}, bf16 ${near}`);
  });
}
