/** A profile as people read it. */
import type { Ceilings, Profile } from "@tessera/shard-worker/profile";
import { columns } from "../commands/text-table.js";
import type { PhaseSums } from "./sums.js";

const HEAD = ["op", "calls", "ms", "of the step", "GB/s", "GFLOP/s", "of its ceiling", ""];

const ms = (ns: number) => (ns / 1e6).toFixed(3);
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
/** Bytes a nanosecond are GB a second. */
const rate = (amount: number, ns: number) =>
  amount === 0 || ns === 0 ? "" : (amount / ns).toFixed(1);

export function ceilingsText({ cpu, threads }: Profile, ceilings: Ceilings): string {
  const { readBytesPerSecond, flopsPerSecond } = ceilings;
  const of = `${cpu}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return (
    `ceilings of this run (${of}): reading ${(readBytesPerSecond / 1e9).toFixed(1)} GB/s, ` +
    `multiply-adds ${(flopsPerSecond / 1e9).toFixed(1)} GFLOP/s`
  );
}

export function phaseText({ phase, steps, items, ns, ops, restNs }: PhaseSums): string[] {
  const unit = phase === "encode" ? "tiles" : "tokens";
  const head =
    `${phase}: ${items} ${unit} in ${steps} ${steps === 1 ? "step" : "steps"} of ` +
    `${ms(ns / steps)} ms, ${((items * 1e9) / ns).toFixed(1)} ${unit}/s`;
  const rows = ops.map((op) => [
    op.op,
    String(op.calls),
    ms(op.ns),
    percent(op.share),
    rate(op.bytes, op.ns),
    rate(op.flops, op.ns),
    op.ceilingShare === undefined ? "" : percent(op.ceilingShare),
    op.bound ?? "",
  ]);
  const rest = ["between ops", "", ms(restNs), percent(restNs / ns)];
  const total = ["all", "", ms(ns), percent(1)];
  return [head, ...columns([HEAD, ...rows, rest, total], [1, 2, 3, 4, 5, 6])];
}
