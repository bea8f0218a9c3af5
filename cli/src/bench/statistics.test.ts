import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceOf } from "./random.js";
import { percentileOf, Reservoir, summarize } from "./statistics.js";

const HUNDRED = Array.from({ length: 100 }, (_, i) => i + 1);

for (const [values, part, expected] of [
  [HUNDRED, 0.99, 99],
  [HUNDRED, 0.9, 90],
  [HUNDRED, 1, 100],
  [HUNDRED, 0, 1],
  [[15, 20, 35, 40, 50], 0.3, 20],
  [[15, 20, 35, 40, 50], 0.4, 20],
  [[15, 20, 35, 40, 50], 0.41, 35],
  [HUNDRED.slice(0, 20), 0.95, 19],
  [[7], 0.99, 7],
] as const)
  test(`percentileOf: ${part} of ${values.length} values from ${values[0]} is ${expected}`, () => {
    assert.equal(percentileOf(values, part), expected);
  });

test("percentileOf: of no values is refused, not made up", () => {
  assert.throws(() => percentileOf([], 0.5), RangeError);
});

test("summarize: known values in any order", () => {
  const summary = summarize([4, 1, 3, 2]);
  assert.deepEqual(summary, {
    count: 4,
    mean: 2.5,
    median: 2.5,
    p90: 4,
    p95: 4,
    p99: 4,
    least: 1,
    most: 4,
    deviation: Math.sqrt(1.25),
  });
});

test("summarize: sorts by value, not by text", () => {
  assert.equal(summarize([10, 9, 100])?.median, 10);
});

test("summarize: of no values there is none", () => {
  assert.equal(summarize([]), undefined);
});

test("Reservoir: keeps all up to its limit, then that many, and counts what came", () => {
  const reservoir = new Reservoir(10, sourceOf(1, "reservoir"));
  for (let i = 0; i < 10; i++) reservoir.add(i);
  assert.deepEqual([reservoir.values.length, reservoir.isSample], [10, false]);
  for (let i = 10; i < 1000; i++) reservoir.add(i);
  assert.deepEqual([reservoir.values.length, reservoir.isSample], [10, true]);
  assert.equal(reservoir.count, 1000);
});

test("Reservoir: early and late values are as likely to stay", () => {
  const source = sourceOf(2, "reservoir");
  const rounds = 2000;
  let early = 0;
  for (let round = 0; round < rounds; round++) {
    const reservoir = new Reservoir(4, source);
    for (let i = 0; i < 16; i++) reservoir.add(i);
    early += reservoir.values.filter((value) => value < 8).length;
  }
  // Half of 4 × 2000 kept values; their standard deviation is below √(8000 / 4) = 45: five of them.
  assert.ok(Math.abs(early - 2 * rounds) < 225, `${early} of ${4 * rounds}`);
});
