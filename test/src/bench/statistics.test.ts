import assert from "node:assert/strict";
import { test } from "node:test";
import { seeded } from "../harness/random.js";
import { largestGap, median, medianError, pairedRatio, percentile } from "./statistics.js";

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

test("medianError: of equal values none; it falls with the root of their number, and one outlier changes little", () => {
  assert.equal(medianError([2, 2, 2]), 0);
  const values = Array.from({ length: 101 }, (_, i) => 100 + (i % 5));
  const four = [values, values, values, values].flat();
  assert.ok(Math.abs(medianError(values) / medianError(four) - 2) < 1e-9);
  // Of 100, 101, … 104 the median distance from the middle is 1.
  assert.ok(Math.abs(medianError(values) - (1.2533 * 1.4826) / Math.sqrt(101)) < 1e-9);
  assert.equal(medianError([...values.slice(1), 1e6]), medianError(values));
  assert.throws(() => medianError([]), /median of no values/);
});

test("medianError: as often as a normal error says the median of random values lies within it", () => {
  const random = seeded(1);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const samples = Array.from({ length: 2000 }, () => Array.from({ length: 51 }, normal));
  const within = samples.filter((sample) => Math.abs(median(sample)) <= medianError(sample));
  // 68 % for an exact error; the estimate from 51 values has an error of its own.
  const share = within.length / samples.length;
  assert.ok(share > 0.6 && share < 0.75, `${share}`);
});

test("largestGap: between neighbours, wherever it stands; one time has none", () => {
  assert.equal(largestGap([1, 2, 7, 9]), 5);
  assert.equal(largestGap([1, 2, 3, 13]), 10);
  assert.equal(largestGap([4, 4]), 0);
  assert.throws(() => largestGap([4]), /gaps of 1 times/);
});
