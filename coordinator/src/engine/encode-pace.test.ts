import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EncodePace } from "./encode-pace.js";

const BUDGET_MS = 100;
const pace = () => new EncodePace({ maxTiles: 7, budgetMs: BUDGET_MS, unknownMs: 5000 });

test("pace: one tile a rank until one was measured, and the deadline of a step is taken for it", () => {
  const fresh = pace();
  assert.deepEqual([fresh.tilesPerRank(false), fresh.tilesPerRank(true)], [1, 1]);
  assert.equal(fresh.estimateMs(1), 5000);
});

test("pace: full batches while nothing runs; beside steps what fits, at least one", () => {
  const rows: [ms: number, beside: number][] = [
    [0, 7],
    [10, 7],
    [20, 5],
    [33, 3],
    [60, 1],
    [8000, 1],
  ];
  for (const [ms, beside] of rows) {
    const known = pace();
    known.observe(3, 3 * ms);
    assert.deepEqual([known.tilesPerRank(false), known.tilesPerRank(true)], [7, beside]);
    assert.equal(known.estimateMs(4), 4 * ms);
  }
});

test("pace: the average follows, and what runs waits no longer than it says", () => {
  const times = fc.array(
    fc.tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 900 })),
    {
      minLength: 1,
    },
  );
  fc.assert(
    fc.property(times, (all) => {
      const known = pace();
      for (const [tiles, ms] of all) known.observe(tiles, ms);
      const tiles = known.tilesPerRank(true);
      assert.ok(tiles === 1 || known.estimateMs(tiles) <= BUDGET_MS);
      for (let i = 0; i < 60; i++) known.observe(2, 60);
      assert.equal(known.tilesPerRank(true), 3);
      assert.ok(known.estimateMs(1) >= 30 && known.estimateMs(1) <= 31);
    }),
  );
});
