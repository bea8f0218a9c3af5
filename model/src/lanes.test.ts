import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  checkTensorParallelSize,
  headStarts,
  laneCount,
  laneStarts,
  rankLaneStarts,
  rankRange,
} from "./lanes.js";

const SIZES = [1, 2, 4, 8];
const lanes = fc.constantFrom(...SIZES);
const unit = fc.constantFrom(64, 128, 256);
const columns = fc.integer({ min: 1, max: 200_000 });

test("laneStarts: lanes cover the columns in order, cut at whole units, as even as units allow", () => {
  fc.assert(
    fc.property(columns, lanes, unit, (count, n, u) => {
      const starts = laneStarts(count, n, u);
      assert.equal(starts.length, n + 1);
      assert.deepEqual([starts[0], starts[n]], [0, count]);
      const units = starts.slice(0, -1).map((start) => start / u);
      assert.ok(units.every((at, i) => Number.isInteger(at) || starts[i] === count));
      const widths = starts.slice(1).map((end, i) => end - (starts[i] ?? NaN));
      assert.ok(widths.every((width) => width >= 0));
      const whole = widths.map((width) => Math.ceil(width / u));
      assert.ok(Math.max(...whole) - Math.min(...whole) <= 1, widths.join());
    }),
  );
});

test("laneStarts: of G units lane i starts at unit ⌊i·G/L⌋", () => {
  fc.assert(
    fc.property(columns, lanes, unit, (count, n, u) => {
      const units = BigInt(Math.ceil(count / u));
      laneStarts(count, n, u).forEach((start, i) => {
        const want = Number((BigInt(i) * units) / BigInt(n)) * u;
        assert.equal(start, Math.min(count, want));
      });
    }),
  );
});

test("rankRange: the ranks of every size cover everything once, and a larger size only splits", () => {
  fc.assert(
    fc.property(columns, lanes, unit, (count, n, u) => {
      const starts = laneStarts(count, n, u);
      for (const size of SIZES.filter((one) => n % one === 0)) {
        const ranges = Array.from({ length: size }, (_, rank) => rankRange(starts, { rank, size }));
        let at = 0;
        for (const range of ranges) {
          assert.equal(range.start, at);
          assert.ok(starts.includes(at));
          at += range.count;
        }
        assert.equal(at, count);
      }
    }),
  );
});

test("rankLaneStarts: a rank's own lanes are the whole's, counted from its first column", () => {
  fc.assert(
    fc.property(columns, fc.constantFrom(1, 2, 4, 8), unit, (count, size, u) => {
      const starts = laneStarts(count, 8, u);
      const joined = Array.from({ length: size }, (_, rank) => {
        const first = rankRange(starts, { rank, size }).start;
        const own = rankLaneStarts(starts, { rank, size });
        assert.equal(own[0], 0);
        return own.map((start) => first + start);
      });
      assert.deepEqual([...new Set(joined.flat())], [...new Set(starts)]);
    }),
  );
});

test("29568 columns over 8 ranks are 3648, 3712, 3712, 3712 twice", () => {
  const starts = laneStarts(29568, 8);
  const counts = Array.from({ length: 8 }, (_, rank) => rankRange(starts, { rank, size: 8 }).count);
  assert.deepEqual(counts, [3648, 3712, 3712, 3712, 3648, 3712, 3712, 3712]);
});

test("25 vision heads are in groups of 3, the last of 4", () => {
  assert.deepEqual(headStarts(25, 8), [0, 3, 6, 9, 12, 15, 18, 21, 25]);
});

test("laneCount: the largest power of two up to 8 that divides the key-value heads", () => {
  const cases = [1, 2, 3, 4, 6, 8, 12, 16, 24, 40].map((heads) => [heads, laneCount(heads)]);
  const want = [1, 2, 1, 4, 2, 8, 4, 8, 8, 8];
  assert.deepEqual(
    cases.map(([, count]) => count),
    want,
  );
});

const refused: [number, number, RegExp][] = [
  [8, 16, /size 16: the 8 key-value heads give 8 lanes.*possible: 1, 2, 4, 8; next: 8$/],
  [8, 3, /size 3: a rank holds whole lanes, of which there are 8; possible: 1, 2, 4, 8; next: 2$/],
  [8, 0, /size 0: .*possible: 1, 2, 4, 8; next: 1$/],
  [8, -2, /size -2: .*next: 1$/],
  [8, 2.5, /size 2.5: .*next: 2$/],
  [4, 8, /size 8: the 4 key-value heads give 4 lanes.*possible: 1, 2, 4; next: 4$/],
  [3, 2, /size 2: the 3 key-value heads give 1 lanes.*possible: 1; next: 1$/],
];
for (const [kvHeads, size, message] of refused)
  test(`checkTensorParallelSize: ${size} over ${kvHeads} key-value heads is refused`, () => {
    assert.throws(() => checkTensorParallelSize({ decoder: { kvHeads } }, size), {
      code: "INVALID_ARGUMENT",
      message,
    });
  });
