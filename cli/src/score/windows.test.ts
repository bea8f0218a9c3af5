import assert from "node:assert/strict";
import { test } from "node:test";
import { strided } from "./windows.js";

test("strided: a text that fits is one window, whose first token is not scored", () => {
  assert.deepEqual(strided(5, { window: 8, stride: 4 }), [{ start: 0, end: 5, first: 1 }]);
  assert.deepEqual(strided(8, { window: 8, stride: 4 }), [{ start: 0, end: 8, first: 1 }]);
});

test("strided: one token more opens a window that scores it alone", () => {
  assert.deepEqual(strided(9, { window: 8, stride: 4 }), [
    { start: 0, end: 8, first: 1 },
    { start: 4, end: 9, first: 8 },
  ]);
});

test("strided: a text of one token, or none, has nothing to score", () => {
  assert.deepEqual(strided(1, { window: 8, stride: 4 }), []);
  assert.deepEqual(strided(0, { window: 8, stride: 4 }), []);
});

/** The loop of Hugging Face's guide: begin, end, and how many of the last tokens are targets. */
function guide(count: number, window: number, stride: number): [number, number, number][] {
  const rows: [number, number, number][] = [];
  let before = 0;
  for (let begin = 0; begin < count; begin += stride) {
    const end = Math.min(begin + window, count);
    rows.push([begin, end, end - before]);
    before = end;
    if (end === count) break;
  }
  return rows;
}

test("strided: windows are those of the guide, and each token but the first is scored once, with context", () => {
  for (const window of [2, 3, 7, 16])
    for (let stride = 1; stride < window; stride++)
      for (let count = 2; count < 60; count++) {
        const windows = strided(count, { window, stride });
        const rows = windows.map(({ start, end, first }, i) => [
          start,
          end,
          end - first + (i === 0 ? 1 : 0),
        ]);
        assert.deepEqual(rows, guide(count, window, stride), `${count}/${window}/${stride}`);
        const scored = windows.flatMap(({ first, end }) =>
          Array.from({ length: end - first }, (_, i) => first + i),
        );
        assert.deepEqual(
          scored,
          Array.from({ length: count - 1 }, (_, i) => i + 1),
        );
        for (const { start, end, first } of windows) {
          assert.ok(end - start <= window);
          assert.ok(first - start >= Math.min(1, first), `${first} has no token before it`);
        }
        for (const { start, first } of windows.slice(1))
          assert.equal(first - start, window - stride);
      }
});

test("strided: a stride of the whole window is a broken invariant: its tokens would have nothing before them", () => {
  assert.throws(() => strided(20, { window: 8, stride: 8 }), /stride 8, window 8/);
});
