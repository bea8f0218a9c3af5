import assert from "node:assert/strict";
import { test } from "node:test";
import {
  blocksPerSequence,
  decodePlans,
  encodePlans,
  prefillPlans,
  prefillSlices,
  warmUpPlan,
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

test("plans: steps are numbered without a gap, decode goes on where prompts end", () => {
  const prefill = [...prefillPlans(sizes)];
  const decode = [...decodePlans(sizes, prefill.length + 2)];
  const all = [warmUpPlan(sizes), ...prefill, ...decode];
  assert.deepEqual(
    all.map(({ stepId, releasedStep, profile }) => [stepId, releasedStep, profile]),
    all.map((_, i) => [BigInt(i + 1), BigInt(i), i > 0]),
  );
  assert.deepEqual(
    decode.map(({ slices }) => slices.map(({ startPosition }) => startPosition)),
    [
      [10, 10, 10],
      [11, 11, 11],
    ],
  );
  const ids = [...prefill, ...decode].flatMap(({ slices }) =>
    slices.flatMap(({ tokenIds }) => tokenIds),
  );
  assert.equal(ids.length, 3 * 12);
  assert.ok(ids.every((id) => id >= 0 && id < sizes.vocabulary));
  assert.ok(new Set(ids).size > 10);
});

test("plans: what the warm-up opened is closed by the first that is timed, each sequence then opened once", () => {
  const wide = { ...sizes, maxBatchedTokens: 25 };
  const warmUp = warmUpPlan(wide);
  const prefill = [...prefillPlans(wide)];
  const opened = (plans: typeof prefill) =>
    plans.flatMap((plan) => plan.opened.map(({ sequenceId }) => sequenceId));
  assert.deepEqual(opened([warmUp]), [1n, 2n, 3n]);
  assert.deepEqual(
    prefill.map((plan) => plan.closedSequenceIds),
    [[1n, 2n, 3n], []],
  );
  assert.deepEqual(opened(prefill), [1n, 2n, 3n]);
});

test("encodePlans: the first twice, not timed at first; then all tiles, at most so many at a time", () => {
  const plans = [...encodePlans(5, { epoch: 2n, most: 2, tileSize: 4 })];
  assert.deepEqual(
    plans.map(({ encodeId, profile, tiles }) => [
      encodeId,
      profile,
      tiles.map(({ embeddingId }) => embeddingId),
    ]),
    [
      [1n, false, [1n, 2n]],
      [2n, true, [1n, 2n]],
      [3n, true, [3n, 4n]],
      [4n, true, [5n]],
    ],
  );
  assert.deepEqual([...encodePlans(0, { epoch: 2n, most: 2, tileSize: 4 })], []);
  assert.ok(plans.every(({ tiles }) => tiles.every(({ pixels }) => pixels.length === 48)));
});
