/**
 * The golden requests of nvlm-x-tiny and nvlm-h-tiny through 1, 2, 4 and 8 engines in one process: greedy ids, and
 * log-probabilities to the bit at every width and chunk.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { answersOf, assertLikeOracle, type Answer } from "../harness/golden-runner.js";
import { readGoldens } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

for (const variant of ["x", "h"]) {
  const goldens = await readGoldens(`nvlm-${variant}-tiny.json`);
  const dir = root(`models/nvlm-${variant}-tiny`);
  let reference: Answer[] | undefined;
  for (const { size, chunk } of [
    { size: 1, chunk: 1000 },
    { size: 1, chunk: 1 },
    { size: 2, chunk: 17 },
    { size: 4, chunk: 5 },
    { size: 8, chunk: 1000 },
  ])
    test(`nvlm-${variant}-tiny, ${size} ranks, chunks of ${chunk}: the oracle's tokens, the same bits`, async () => {
      const answers = await answersOf(goldens, dir, { size, kvType: "f32", chunk });
      assertLikeOracle(answers, goldens);
      reference ??= answers;
      assert.deepEqual(answers, reference);
    });
}
