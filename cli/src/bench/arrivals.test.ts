import assert from "node:assert/strict";
import { test } from "node:test";
import { arrivalTimesMs, type ArrivalOptions } from "./arrivals.js";
import { sourceOf } from "./random.js";

const COUNT = 20_000;

function timesOf(options: ArrivalOptions, seed: number, count = COUNT): number[] {
  const times: number[] = [];
  for (const at of arrivalTimesMs(options, sourceOf(seed, "arrivals"))) {
    times.push(at);
    if (times.length === count) break;
  }
  return times;
}

function gapsOf(times: number[]): number[] {
  return times.map((at, i) => at - (times[i - 1] ?? 0));
}

/** Mean, and standard deviation over mean. */
function momentsOf(values: number[]): { mean: number; variation: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { mean, variation: Math.sqrt(square) / mean };
}

// A gamma distribution of shape b has variation 1 / √b. Over 20,000 gaps the mean's own standard error is at most
// variation / √20,000 = 1.4 % at b = 0.25: bounds of four of them and more.
for (const [burstiness, variation] of [
  [0.25, 2],
  [1, 1],
  [4, 0.5],
] as const)
  for (const rate of [0.5, 8, 1000])
    test(`arrivals: ${rate}/s of burstiness ${burstiness} have their mean and variation`, () => {
      const { mean, variation: found } = momentsOf(gapsOf(timesOf({ rate, burstiness }, 7)));
      assert.ok(Math.abs((mean * rate) / 1000 - 1) < 0.06, `mean ${mean}`);
      assert.ok(Math.abs(found / variation - 1) < 0.1, `variation ${found}`);
    });

test("arrivals: Poisson counts of a second have a variance like their mean", () => {
  const times = timesOf({ rate: 10, burstiness: 1 }, 3);
  const counts = new Array<number>(1900).fill(0);
  for (const at of times) {
    const second = Math.floor(at / 1000);
    if (second < counts.length) counts[second] = (counts[second] ?? 0) + 1;
  }
  const { mean, variation } = momentsOf(counts);
  const dispersion = (variation * mean) ** 2 / mean;
  // The dispersion of n counts has standard deviation √(2 / n) = 0.032.
  assert.ok(Math.abs(dispersion - 1) < 0.15, `dispersion ${dispersion}`);
});

test("arrivals: the same seed gives the same times, another one others", () => {
  const options = { rate: 5, burstiness: 0.5 };
  assert.deepEqual(timesOf(options, 11, 100), timesOf(options, 11, 100));
  assert.notDeepEqual(timesOf(options, 11, 100), timesOf(options, 12, 100));
});

test("arrivals: at an infinite rate all are there at once", () => {
  assert.deepEqual(timesOf({ rate: Infinity, burstiness: 1 }, 1, 3), [0, 0, 0]);
});
