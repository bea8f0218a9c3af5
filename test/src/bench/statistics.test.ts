import assert from "node:assert/strict";
import { test } from "node:test";
import { median, pairedRatio, percentile } from "./statistics.js";

test("median: the middle of an odd number, the mean of the two middle ones of an even number", () => {
  assert.equal(median([5, 1, 3]), 3);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([7]), 7);
  assert.throws(() => median([]), /median of no values/);
});

test("median: numbers are ordered as numbers, and the argument is left as it was", () => {
  const values = [10, 9, 100];
  assert.equal(median(values), 10);
  assert.deepEqual(values, [10, 9, 100]);
});

test("percentile: nearest rank, so that the 99th of 100 values is the second largest", () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.equal(percentile(values, 0.99), 99);
  assert.equal(percentile(values, 1), 100);
  assert.equal(percentile(values, 0), 1);
  assert.equal(percentile([3, 1, 2], 0.5), 2);
  assert.throws(() => percentile(values, 99), /percentile 99, must be 0 … 1/);
});

test("pairedRatio: a machine that slows down both by the same factor changes nothing", () => {
  const pairs = [1, 2, 40].map((slow) => ({ value: 3 * slow, rival: 2 * slow }));
  assert.equal(pairedRatio(pairs), 1.5);
  assert.throws(() => pairedRatio([{ value: 1, rival: 0 }]), /ratio to 0/);
});
