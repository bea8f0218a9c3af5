import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DraftPace } from "./draft-pace.js";

/** Lengths of so many steps, each with as many drafts accepted as `accept` says. */
function run(pace: DraftPace, steps: number, accept: (drafts: number) => number): number[] {
  return Array.from({ length: steps }, () => {
    const drafts = pace.next();
    if (drafts > 0) pace.tried(drafts, accept(drafts));
    return drafts;
  });
}

test("pace: where all comes true it doubles up to the most, and a part sets it to that part", () => {
  const pace = new DraftPace(6);
  assert.deepEqual(
    run(pace, 5, (drafts) => drafts),
    [1, 2, 4, 6, 6],
  );
  assert.deepEqual(
    run(pace, 2, () => 2),
    [6, 2],
  );
});

test("pace: where nothing comes true it tries one, in ever rarer steps: less than 1 in 30 in the end", () => {
  const pace = new DraftPace(4);
  const lengths = run(pace, 10_000, () => 0);
  assert.deepEqual(lengths.slice(0, 13), [1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
  assert.ok(lengths.every((length) => length <= 1));
  const tries = (from: number, to: number) =>
    lengths.slice(from, to).reduce((sum, length) => sum + length, 0);
  assert.ok(tries(0, 128) <= 7, `${tries(0, 128)} in the first 128 steps`);
  assert.ok(tries(100, 10_000) < 9900 / 30);
});

test("pace: what comes true one time in fifty costs a row in less than one of twenty steps", () => {
  const pace = new DraftPace(8);
  let tried = 0;
  const lengths = run(pace, 20_000, () => (++tried % 50 === 0 ? 1 : 0));
  assert.ok(lengths.reduce((sum, length) => sum + length, 0) < 20_000 / 20);
});

test("pace: back where text repeats again after whatever was before, never more than the most", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 16 }), fc.array(fc.nat(16)), (most, before) => {
      const pace = new DraftPace(most);
      let step = 0;
      const lengths = run(pace, before.length, (drafts) =>
        Math.min(drafts, before[step++ % before.length] ?? 0),
      );
      assert.ok(lengths.every((length) => length <= most));
      assert.ok(run(pace, 40, (drafts) => drafts).at(-1) === most);
    }),
  );
});
