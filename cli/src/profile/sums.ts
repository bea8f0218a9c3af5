/** A profile's times, op by op, and what they are of their ceilings. */
import type { Ceilings, ProfiledOp, ProfiledPhase } from "@tessera/shard-worker/profile";

export interface OpSum {
  op: string;
  calls: number;
  ns: number;
  /** Of `ns`: for peers. */
  waitNs: number;
  bytes: number;
  flops: number;
  /** Of the steps' time. */
  share: number;
  /** What it would take at the ceilings, to what it took; absent where nothing is counted. */
  ceilingShare?: number;
  /** The ceiling that most of that time is of. */
  bound?: "memory" | "arithmetic";
}

export interface PhaseSums {
  phase: string;
  steps: number;
  /** Tokens, or tiles. */
  items: number;
  ns: number;
  /** The longest first. */
  ops: OpSum[];
  /** Of the steps' time: between the ops. */
  restNs: number;
}

interface Ideal {
  memoryNs: number;
  arithmeticNs: number;
  /** Of each call the longer of its two. */
  ns: number;
}

function addIdeal(ideal: Ideal, { bytes, flops }: ProfiledOp, ceilings: Ceilings): void {
  const memoryNs = (bytes / ceilings.readBytesPerSecond) * 1e9;
  const arithmeticNs = (flops / ceilings.flopsPerSecond) * 1e9;
  ideal.ns += Math.max(memoryNs, arithmeticNs);
  if (arithmeticNs > memoryNs) ideal.arithmeticNs += arithmeticNs;
  else ideal.memoryNs += memoryNs;
}

function boundOf({ memoryNs, arithmeticNs }: Ideal): "memory" | "arithmetic" {
  return arithmeticNs > memoryNs ? "arithmetic" : "memory";
}

export function sumPhase({ name, steps }: ProfiledPhase, ceilings: Ceilings): PhaseSums {
  const ns = steps.reduce((sum, step) => sum + step.ns, 0);
  const sums = new Map<string, OpSum & { ideal: Ideal }>();
  for (const op of steps.flatMap((step) => step.ops)) {
    let sum = sums.get(op.name);
    if (sum === undefined) {
      const ideal = { memoryNs: 0, arithmeticNs: 0, ns: 0 };
      sum = { op: op.name, calls: 0, ns: 0, waitNs: 0, bytes: 0, flops: 0, share: 0, ideal };
      sums.set(op.name, sum);
    }
    sum.calls++;
    sum.ns += op.ns;
    sum.waitNs += op.waitNs;
    sum.bytes += op.bytes;
    sum.flops += op.flops;
    addIdeal(sum.ideal, op, ceilings);
  }
  const ops = [...sums.values()].sort((a, b) => b.ns - a.ns);
  return {
    phase: name,
    steps: steps.length,
    items: steps.reduce((sum, step) => sum + step.items, 0),
    ns,
    ops: ops.map(({ ideal, ...sum }) => ({
      ...sum,
      share: ns === 0 ? 0 : sum.ns / ns,
      ...(ideal.ns === 0 || sum.ns === 0
        ? {}
        : { ceilingShare: ideal.ns / sum.ns, bound: boundOf(ideal) }),
    })),
    restNs: ns - ops.reduce((sum, op) => sum + op.ns, 0),
  };
}
