import assert from "node:assert/strict";
import { test } from "node:test";
import { sumPhase } from "./sums.js";

const ceilings = { readBytesPerSecond: 10e9, flopsPerSecond: 100e9 };
const op = (name: string, ns: number, cost: { bytes?: number; flops?: number } = {}) => ({
  name,
  layer: undefined,
  rows: 1,
  startNs: 0,
  ns,
  waitNs: 0,
  bytes: 0,
  flops: 0,
  ...cost,
});

test("sumPhase: calls, times and shares by op, the longest first; what is left is between ops", () => {
  const step = { startNs: 0, ns: 1000, items: 2, ops: [op("b", 100), op("a", 600), op("b", 200)] };
  const sums = sumPhase(
    { name: "decode", steps: [step, { ...step, ops: [op("a", 500)] }] },
    ceilings,
  );
  assert.deepEqual(
    sums.ops.map(({ op: name, calls, ns, share }) => [name, calls, ns, share]),
    [
      ["a", 2, 1100, 0.55],
      ["b", 2, 300, 0.15],
    ],
  );
  assert.deepEqual([sums.steps, sums.items, sums.ns, sums.restNs], [2, 4, 2000, 600]);
});

test("sumPhase: the share of its ceiling is of the longer of reading and arithmetic, call by call", () => {
  const ops = [
    op("read", 200, { bytes: 1000, flops: 10 }), // 100 ns at 10 bytes a ns
    op("compute", 400, { bytes: 1000, flops: 30_000 }), // 300 ns at 100 flops a ns
    op("mixed", 500, { bytes: 1000 }),
    op("mixed", 300, { flops: 30_000 }),
    op("nothing", 50),
  ];
  const sums = sumPhase(
    { name: "prefill", steps: [{ startNs: 0, ns: 2000, items: 1, ops }] },
    ceilings,
  );
  const of = Object.fromEntries(sums.ops.map((sum) => [sum.op, sum]));
  assert.deepEqual([of["read"]?.ceilingShare, of["read"]?.bound], [0.5, "memory"]);
  assert.deepEqual([of["compute"]?.ceilingShare, of["compute"]?.bound], [0.75, "arithmetic"]);
  assert.deepEqual([of["mixed"]?.ceilingShare, of["mixed"]?.bound], [0.5, "arithmetic"]);
  assert.deepEqual([of["nothing"]?.ceilingShare, of["nothing"]?.bound], [undefined, undefined]);
});
