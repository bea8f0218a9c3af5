import assert from "node:assert/strict";
import { test } from "node:test";
import {
  blocksPerSequence,
  decodePlans,
  encodePlans,
  prefillPlans,
  prefillSlices,
} from "./passes.js";

const sizes = {
  epoch: 2n,
  batch: 3,
  promptLen: 10,
  decodeLen: 2,
  maxBatchedTokens: 8,
  vocabulary: 50,
};

test("prefillSlices: prompts fill steps of the budget one after another, each token once", () => {
  const steps = prefillSlices(sizes);
  assert.deepEqual(
    steps.map((slices) =>
      slices.map(({ sequenceId, startPosition, tokenIds }) => [
        Number(sequenceId),
        startPosition,
        tokenIds.length,
      ]),
    ),
    [
      [[1, 0, 8]],
      [
        [1, 8, 2],
        [2, 0, 6],
      ],
      [
        [2, 6, 4],
        [3, 0, 4],
      ],
      [[3, 4, 6]],
    ],
  );
});

test("prefillSlices: the last row of each prompt is wanted, no other", () => {
  const wanted = prefillSlices(sizes)
    .flat()
    .filter((slice) => slice.wanted.length > 0)
    .map(({ sequenceId, startPosition, wanted: [row] }) => [
      Number(sequenceId),
      startPosition + (row?.row ?? NaN),
    ]);
  assert.deepEqual(wanted, [
    [1, 9],
    [2, 9],
    [3, 9],
  ]);
});

test("blocks: each sequence has its own, enough for prompt and answer", () => {
  const long = { ...sizes, promptLen: 31, decodeLen: 2, maxBatchedTokens: 100 };
  assert.equal(blocksPerSequence(long), 2);
  const blocks = prefillSlices(long).flatMap((slices) =>
    slices.flatMap(({ blockIds }) => blockIds),
  );
  assert.deepEqual(blocks, [0, 1, 2, 3, 4, 5]);
});

test("plans: steps are numbered without a gap, sequences opened once, decode goes on where prompts end", () => {
  const prefill = [...prefillPlans(sizes, 1)];
  const decode = [...decodePlans(sizes, prefill.length + 1)];
  const all = [...prefill, ...decode];
  assert.deepEqual(
    all.map(({ stepId, releasedStep }) => [stepId, releasedStep]),
    all.map((_, i) => [BigInt(i + 1), BigInt(i)]),
  );
  const opened = all.flatMap((plan) => plan.opened.map(({ sequenceId }) => sequenceId));
  assert.deepEqual(opened, [1n, 2n, 3n]);
  assert.deepEqual(
    decode.map(({ slices }) => slices.map(({ startPosition }) => startPosition)),
    [
      [10, 10, 10],
      [11, 11, 11],
    ],
  );
  const ids = all.flatMap(({ slices }) => slices.flatMap(({ tokenIds }) => tokenIds));
  assert.equal(ids.length, 3 * 12);
  assert.ok(ids.every((id) => id >= 0 && id < sizes.vocabulary));
  assert.ok(new Set(ids).size > 10);
});

test("encodePlans: all tiles, at most so many at a time", () => {
  const plans = [...encodePlans(5, { epoch: 2n, most: 2, tileSize: 4 })];
  assert.deepEqual(
    plans.map(({ encodeId, tiles }) => [encodeId, tiles.map(({ embeddingId }) => embeddingId)]),
    [
      [1n, [1n, 2n]],
      [2n, [3n, 4n]],
      [3n, [5n]],
    ],
  );
  assert.ok(plans.every(({ tiles }) => tiles.every(({ pixels }) => pixels.length === 48)));
});
