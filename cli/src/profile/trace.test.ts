import assert from "node:assert/strict";
import { test } from "node:test";
import type { Profile } from "@tessera/shard-worker/profile";
import { traceEvents, traceText } from "./trace.js";

const op = (name: string, startNs: number, ns: number) => ({
  name,
  layer: 3,
  rows: 1,
  startNs,
  ns,
  waitNs: 0,
  bytes: 8,
  flops: 16,
});
const step = (startNs: number, ns: number) => ({
  startNs,
  ns,
  items: 4,
  ops: [op("a", 100, 200), op("b", 300, 50)],
});
const profile: Profile = {
  model: "models/x",
  cpu: "avx2",
  threads: 2,
  ceilings: { readBytesPerSecond: 1, flopsPerSecond: 2 },
  phases: [
    // The clock of the second step is a little early.
    { name: "prefill", steps: [step(1000, 500), step(1490, 500)] },
    { name: "decode", steps: [step(1900, 400)] },
  ],
};

test("traceEvents: phases, steps and ops in order; none begins before its elder ends", () => {
  const events = traceEvents(profile).flat();
  assert.deepEqual(
    events.map(({ name, ts, dur }) => [name, ts, dur]),
    [
      ["prefill", 1, 1],
      ["prefill 1", 1, 0.5],
      ["a", 1.1, 0.2],
      ["b", 1.3, 0.05],
      ["prefill 2", 1.5, 0.5],
      ["a", 1.6, 0.2],
      ["b", 1.8, 0.05],
      ["decode", 2, 0.4],
      ["decode 1", 2, 0.4],
      ["a", 2.1, 0.2],
      ["b", 2.3, 0.05],
    ],
  );
  assert.deepEqual(events[2]?.args, { layer: 3, rows: 1, bytes: 8, flops: 16, waitNs: 0 });
});

test("traceText: one JSON object of Chrome's trace format", () => {
  const json = JSON.parse([...traceText(profile)].join("")) as {
    otherData: Record<string, unknown>;
    traceEvents: { ph: string; pid: number; tid: number }[];
  };
  assert.equal(json.otherData["model"], "models/x");
  assert.equal(json.traceEvents.length, 2 + traceEvents(profile).flat().length);
  assert.ok(
    json.traceEvents.every(({ ph, pid, tid }) => "MX".includes(ph) && pid === 1 && tid === 1),
  );
});
