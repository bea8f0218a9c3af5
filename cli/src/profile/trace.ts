/** A profile as Chrome's trace events (one JSON object), which Perfetto and chrome://tracing open. */
import type { Profile, ProfiledPhase, ProfiledStep } from "@tessera/shard-worker/profile";

/** Times in microseconds. */
export interface TraceEvent {
  name: string;
  cat: "phase" | "step" | "op";
  ph: "X";
  ts: number;
  dur: number;
  pid: number;
  tid: number;
  args: Record<string, string | number>;
}

const PLACE = { pid: 1, tid: 1 };

/** Exact in nanoseconds. */
const us = (ns: number) => ns / 1000;

function complete(
  of: Pick<TraceEvent, "name" | "cat" | "args">,
  { startNs, ns }: { startNs: number; ns: number },
): TraceEvent {
  return { ...of, ph: "X", ts: us(startNs), dur: us(ns), ...PLACE };
}

function stepEvents(step: ProfiledStep, startNs: number, name: string): TraceEvent[] {
  const ops = step.ops.map(({ name: op, layer, rows, waitNs, bytes, flops, startNs: at, ns }) => {
    const args = { ...(layer === undefined ? {} : { layer }), rows, bytes, flops, waitNs };
    return complete({ name: op, cat: "op", args }, { startNs: startNs + at, ns });
  });
  const whole = { startNs, ns: step.ns };
  return [complete({ name, cat: "step", args: { items: step.items } }, whole), ...ops];
}

/** Steps do not overlap, whatever the two clocks say of the moment between them. `after`: where the last phase ended. */
function phaseEvents({ name, steps }: ProfiledPhase, after: number) {
  let end = after;
  const starts = steps.map(({ startNs, ns }) => {
    const start = Math.max(startNs, end);
    end = start + ns;
    return start;
  });
  const [first = after] = starts;
  const args = { steps: steps.length };
  const phase = complete({ name, cat: "phase", args }, { startNs: first, ns: end - first });
  const groups = steps.map((step, i) => stepEvents(step, starts[i] ?? first, `${name} ${i + 1}`));
  return { groups: [[phase], ...groups], end };
}

/** A group a phase and a group a step, in the order of time; phases hold their steps, steps their ops. */
export function traceEvents({ phases }: Profile): TraceEvent[][] {
  let after = 0;
  return phases.flatMap((phase) => {
    const { groups, end } = phaseEvents(phase, after);
    after = end;
    return groups;
  });
}

const NAMES = [
  { name: "process_name", ph: "M", ...PLACE, args: { name: "tessera profile" } },
  { name: "thread_name", ph: "M", ...PLACE, args: { name: "engine" } },
];

/** The file's pieces, a group of events each. */
export function* traceText(profile: Profile): Generator<string> {
  const { model, cpu, threads, ceilings } = profile;
  const other = JSON.stringify({ model, cpu, threads, ...ceilings });
  yield `{"displayTimeUnit":"ns","otherData":${other},"traceEvents":[\n`;
  yield NAMES.map((event) => JSON.stringify(event)).join(",\n");
  for (const events of traceEvents(profile))
    yield `,\n${events.map((event) => JSON.stringify(event)).join(",\n")}`;
  yield "\n]}\n";
}
