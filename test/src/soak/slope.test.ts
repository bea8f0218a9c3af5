import assert from "node:assert/strict";
import { test } from "node:test";
import { seeded } from "../harness/random.js";
import { riseOf, slopeOf, type Sample } from "./slope.js";

const MIB = 2 ** 20;
const ALLOWED = 16 * MIB;
const SECONDS = 600;

/** Once a second: a heap that fills and is collected, a wander, and a leak. */
function memory(seed: number, { leak = 0, settle = 0 } = {}): Sample[] {
  const random = seeded(seed);
  let wander = 0;
  let heap = 0;
  return Array.from({ length: SECONDS }, (_, at) => {
    wander = 0.95 * wander + (random() - 0.5) * 2 * MIB;
    heap = heap > 30 * MIB ? 0 : heap + random() * 4 * MIB;
    const settled = settle * (1 - Math.exp(-at / 40));
    return { at, value: 200 * MIB + wander + heap + settled + leak * at };
  });
}

test("slope: of a line without noise it is the line's, with no error", () => {
  const line = Array.from({ length: 9 }, (_, at) => ({ at, value: 7 + 3 * at }));
  const { perSecond, standardError } = slopeOf(line);
  assert.ok(Math.abs(perSecond - 3) < 1e-12 && standardError < 1e-12);
});

test("slope: the standard error is that of a known example", () => {
  // Residuals 0.1, 0.2, -0.7, 0.4 of 1.4 a step: √(0.7 / 2 / 5).
  const points = [6, 5, 7, 10].map((value, at) => ({ at, value }));
  const { perSecond, standardError } = slopeOf(points);
  assert.ok(Math.abs(perSecond - 1.4) < 1e-12, `${perSecond}`);
  assert.ok(Math.abs(standardError - Math.sqrt(4.2 / 2 / 5)) < 1e-12, `${standardError}`);
});

test("rise: memory that goes to and fro, and that settles at the start, does not rise in 200 runs", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const { rises, growth } = riseOf(memory(seed, { settle: 80 * MIB }), ALLOWED);
    assert.ok(!rises, `seed ${seed}: ${growth}`);
  }
});

test("rise: a leak of 100 KiB a second, 1 KiB of each of 100 requests, is seen in 200 runs", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const { rises, growth } = riseOf(memory(seed, { leak: 100 * 1024 }), ALLOWED);
    assert.ok(rises, `seed ${seed}: ${growth}`);
  }
});

test("rise: one handle lost every ten seconds is seen, handles that come and go are not", () => {
  const random = seeded(5);
  const steady = Array.from({ length: SECONDS }, (_, at) => ({
    at,
    value: 40 + Math.floor(8 * random()),
  }));
  const lost = steady.map(({ at, value }) => ({ at, value: value + Math.floor(at / 10) }));
  assert.equal(riseOf(steady, 4).rises, false);
  assert.equal(riseOf(lost, 4).rises, true);
});

test("rise: samples that are missing for a while are said to be", () => {
  const holed = memory(1).filter(({ at }) => at < 300 || at > 400);
  assert.throws(() => riseOf(holed, ALLOWED), /no sample from \d+/);
});
