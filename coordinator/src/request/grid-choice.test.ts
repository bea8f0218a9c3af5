import assert from "node:assert/strict";
import { test } from "node:test";
import { explainGrid } from "./grid-choice.js";
import { chooseGrid } from "./tiling.js";

const options = { tileSize: 448, maxTiles: 6, useThumbnail: true };
const explain = (width: number, height: number, more = {}) =>
  explainGrid({ width, height }, { ...options, ...more });

test("explainGrid: the chosen grid is first, the others by their distance", () => {
  for (const [width, height] of [
    [640, 480],
    [500, 3000],
    [633, 633],
    [750, 600],
    [1, 1],
  ] as const) {
    const { candidates } = explain(width, height);
    const { columns, rows } = chooseGrid({ width, height }, options);
    assert.deepEqual([candidates[0]?.columns, candidates[0]?.rows], [columns, rows]);
    const distances = candidates.map(({ distance }) => distance);
    assert.deepEqual(
      distances,
      [...distances].sort((a, b) => a - b),
    );
    assert.deepEqual(
      candidates.map(({ chosen }) => chosen),
      [true, false, false, false, false],
    );
  }
});

test("explainGrid: on a tie it says how many pixels the larger grid wants", () => {
  const [small, large] = explain(633, 633).candidates;
  assert.deepEqual([small?.columns, large?.columns, large?.distance], [1, 2, 0]);
  // 633² = 400,689 is not above it, 634² = 401,956 is.
  assert.equal(large?.tiePixels, 401_408);
  assert.equal(explain(634, 634).candidates[0]?.columns, 2);
});

test("explainGrid: patches count the thumbnail where there is one", () => {
  assert.deepEqual([explain(1, 1).patches, explain(640, 480).patches], [1, 7]);
  assert.equal(explain(640, 480, { useThumbnail: false }).patches, 6);
  assert.equal(explain(640, 480, { maxTiles: 12 }).patches, 13);
});

test("explainGrid: with one tile at most there is one candidate", () => {
  assert.equal(explain(640, 480, { maxTiles: 1 }).candidates.length, 1);
});
