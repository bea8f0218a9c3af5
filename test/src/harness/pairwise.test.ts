import assert from "node:assert/strict";
import { test } from "node:test";
import { combinations, pairsOf, pairwise, type Factors } from "./pairwise.js";

interface Case {
  a: number;
  b: string;
  c: boolean;
  d: string[];
}
const factors: Factors<Case> = {
  a: [1, 2, 4, 8],
  b: ["x", "y", "z"],
  c: [true, false],
  d: [["p"], ["q"], ["p", "q"]],
};

test("combinations: every one, less those that are not possible", () => {
  assert.equal(combinations(factors).length, 72);
  assert.equal(combinations(factors, ({ a }) => a > 1).length, 54);
});

test("pairwise: every possible pair is there, in far fewer cases", () => {
  const possible = ({ a, d }: Case) => a > 1 || d.length === 1;
  const cover = pairwise(factors, possible);
  assert.ok(cover.every(possible));
  const all = new Set(combinations(factors, possible).flatMap(pairsOf));
  assert.deepEqual(new Set(cover.flatMap(pairsOf)), all);
  // Of a and b 3 · 4 values have to meet.
  assert.ok(cover.length >= 12 && cover.length <= 20, `${cover.length}`);
  assert.equal(all.size, 12 + 8 + 11 + 6 + 9 + 6);
});
