import assert from "node:assert/strict";
import { test } from "node:test";
import { figure } from "./figure.js";
import { markdown, replaceTable, table } from "./report.js";

const MACHINE = {
  cpu: "a CPU",
  cores: 2,
  memoryGiB: 24,
  kernels: "avx2",
  node: "v20.19.0",
  system: "linux 6",
  loadBefore: 0.1,
  date: "2026-01-02",
};
const FIGURES = [
  figure(
    { name: "kernels.decode", value: 0.81234, unit: "ratio", measure: "to it" },
    { atLeast: 0.75 },
  ),
  figure({ name: "a", value: 1234.5, unit: "us", measure: "so" }, { atMost: 1000 }),
  figure({ name: "b", value: 0.0123, unit: "s", measure: "so" }),
];

test("table: each figure stands beside its goal and whether it is reached, three digits at least", () => {
  assert.deepEqual(table(FIGURES).split("\n"), [
    "kernels.decode   0.812  ratio  ≥ 0.75  reached",
    "a                 1235  us     ≤ 1000  MISSED",
    "b               0.0123  s",
  ]);
});

test("markdown: the machine, and a row a figure with how it is measured", () => {
  const lines = markdown(FIGURES, MACHINE).split("\n");
  assert.equal(
    lines[0],
    "2026-01-02: a CPU, 2 cores, 24 GiB, avx2 kernels, Node v20.19.0, linux 6, load before the run 0.1",
  );
  assert.equal(lines[4], "| kernels.decode | 0.812 | ratio | ≥ 0.75 | reached | to it |");
});

test("replaceTable: only what lies between the marks is exchanged; a page without them is refused", () => {
  const page = "before\n<!-- figures: from here -->\nold\n<!-- figures: to here -->\nafter\n";
  const once = replaceTable(page, "new\n");
  assert.match(once, /^before\n<!-- .* -->\n\nnew\n\n<!-- .* -->\nafter\n$/);
  assert.equal(replaceTable(once, "new\n"), once);
  assert.throws(() => replaceTable("before\nafter\n", "new"), /no <!-- figures/);
});
