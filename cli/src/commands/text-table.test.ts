import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesText, columns, flopsText } from "./text-table.js";

test("columns: as wide as the widest cell, some set to the right, no space at a line's end", () => {
  const rows = [
    ["", "one", "two"],
    ["row", "1", "22222"],
    ["longer", "33"],
  ];
  assert.deepEqual(columns(rows, [1]), ["        one  two", "row       1  22222", "longer   33"]);
  assert.deepEqual(columns([], [0]), []);
});

test("bytesText: three digits in the largest unit of 1024 that fits", () => {
  const got = [0, 1023, 1024, 1536, 10_240, 599_982_080, 2 ** 40 * 2048].map(bytesText);
  const want = ["0 B", "1023 B", "1 KiB", "1.50 KiB", "10 KiB", "572 MiB", "2048 TiB"];
  assert.deepEqual(got, want);
});

test("flopsText: units of 1000", () => {
  assert.deepEqual([999, 1000, 12_345_678_901, 2.5e15].map(flopsText), [
    "999 flop",
    "1 kflop",
    "12.3 Gflop",
    "2.50 Pflop",
  ]);
});
