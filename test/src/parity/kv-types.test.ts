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

/** Log-probabilities of two answers up to where their tokens part, as differences. */
function distances(a: Answer[], b: Answer[]): number[] {
  return a.flatMap(({ ids, logprobs }, i) => {
    const other = b[i] ?? assert.fail();
    const parted = ids.findIndex((id, k) => id !== other.ids[k]);
    const same = parted < 0 ? ids.length : parted;
    return logprobs.slice(0, same).map((value, k) => value - (other.logprobs[k] ?? NaN));
  });
}

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
      test(`nvlm-${variant}-tiny, ${kvType}: ${way.size} ranks, chunks of ${way.chunk}, the bits of one rank and whole prompts`, async () => {
        assert.deepEqual(await answersOf(few, dir, { ...way, kvType }), wanted.slice(0, 4));
      });

  test("DISTANCE", () => {
    const far = rms(distances(int8, wide));
    const near = rms(distances(bf16, wide));
    console.log(variant, far, near, far / near, Math.max(...distances(int8, wide).map(Math.abs)), Math.max(...distances(bf16, wide).map(Math.abs)), distances(int8, wide).length, distances(bf16, wide).length, int8.flatMap((a) => a.ids).length);
  });
}
