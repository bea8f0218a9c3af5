/** `tessera profile`: every op of the program so often as it runs, times that add up, a trace that nests. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openModel, rankProgram, type Program } from "@tessera/model";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

interface OpSum {
  op: string;
  calls: number;
  ns: number;
  waitNs: number;
  bytes: number;
  flops: number;
  share: number;
  ceilingShare?: number;
  bound?: string;
}
interface Phase {
  phase: string;
  steps: number;
  items: number;
  ns: number;
  restNs: number;
  ops: OpSum[];
}
interface Report {
  threads: number;
  ceilings: { readBytesPerSecond: number; flopsPerSecond: number };
  phases: Phase[];
}
interface TraceEvent {
  name: string;
  cat?: string;
  ph: string;
  ts: number;
  dur: number;
}

const folder = await mkdtemp(join(tmpdir(), "tessera-profile-"));
after(() => rm(folder, { recursive: true }));
const tracePath = join(folder, "ops.json");

async function profile(model: string, args: string[]): Promise<Report> {
  const command = ["profile", "--model", root(`models/${model}`), "--json", ...args];
  const { code, stdout, stderr } = await tessera(command, { deadlineMs: 120_000 });
  assert.deepEqual([code, stderr], [0, ""]);
  return JSON.parse(stdout) as Report;
}

/** Runs of each kind of op in one pass without pictures. */
function kindsOf(program: Program): Map<string, number> {
  const kinds = new Map<string, number>();
  const add = (kind: string) => kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  for (const { ops, collective } of program.segments) {
    for (const op of ops) if (op.onSight !== true) add(op.op);
    if (collective !== null && collective.onSight !== true) add(collective.op);
  }
  return kinds;
}

/** By kind: "linear qkv" is a linear. */
function callsOf({ ops }: Phase): Map<string, number> {
  const calls = new Map<string, number>();
  for (const { op, calls: count } of ops) {
    const kind = op.split(" ")[0] ?? op;
    calls.set(kind, (calls.get(kind) ?? 0) + count);
  }
  return calls;
}

function assertCalls(phase: Phase, program: Program, passes: number): void {
  const wanted = [...kindsOf(program)].map(([kind, count]) => [kind, count * passes] as const);
  assert.deepEqual(new Map([...callsOf(phase)].sort()), new Map([...wanted].sort()), phase.phase);
}

for (const model of ["nvlm-d-tiny", "nvlm-x-tiny"])
  test(`profile: every op of ${model}'s programs, as often as it runs`, async () => {
    const { config } = await openModel(root(`models/${model}`));
    const program = rankProgram(config, { rank: 0, size: 1 });
    const args = ["--batch", "3", "--prompt-len", "300", "--decode-len", "4", "--tiles", "3"];
    const { threads, phases } = await profile(model, [...args, "--threads", "1"]);
    assert.equal(threads, 1);
    const [encode, prefill, decode] = phases;
    assert.ok(encode && prefill && decode && phases.length === 3);
    assert.deepEqual(
      phases.map(({ phase, items }) => [phase, items]),
      [
        ["encode", 3],
        ["prefill", 900],
        ["decode", 12],
      ],
    );
    // 900 tokens in steps of 512.
    assert.deepEqual([encode.steps, prefill.steps, decode.steps], [1, 2, 4]);
    assertCalls(encode, program.encode, 1);
    assertCalls(prefill, program.step, 2);
    assertCalls(decode, program.step, 4);
    for (const name of ["qkv", "o_proj", "gate_up", "down_proj"]) {
      const sum: OpSum | undefined = decode.ops.find(({ op }) => op === `linear ${name}`);
      assert.equal(sum?.calls, 4 * config.decoder.layers, name);
    }
  });

test("profile: times add up to the steps' time, and shares are of it", async () => {
  const { ceilings, phases } = await profile("nvlm-d-tiny", ["--prompt-len", "64", "--kv", "int8"]);
  assert.ok(ceilings.readBytesPerSecond > 0 && ceilings.flopsPerSecond > 0);
  for (const { phase, ns, restNs, ops } of phases) {
    assert.equal(ops.reduce((sum, op) => sum + op.ns, 0) + restNs, ns, phase);
    assert.ok(restNs >= 0, `${phase}: ${restNs}`);
    for (const { op, ns: own, share, bytes, flops, waitNs, ...ceiling } of ops) {
      assert.equal(share, own / ns);
      assert.equal(waitNs, 0, "one rank waits for none");
      assert.equal(bytes > 0, op !== "all_reduce_add" && op !== "splice_images", op);
      assert.equal(flops > 0, /^linear |attention$/.test(op), op);
      assert.equal((ceiling.ceilingShare ?? 0) > 0, bytes > 0 && own > 0, op);
    }
  }
});

test("profile: a decode step reads the weights of every linear once, a prompt's the same", async () => {
  const args = ["--prompt-len", "32", "--decode-len", "1", "--batch", "2"];
  const { phases } = await profile("nvlm-d-tiny", args);
  const { config } = await openModel(root("models/nvlm-d-tiny"));
  const { weights } = rankProgram(config, { rank: 0, size: 1 }).step;
  const gateUp = weights.filter(({ name }) => name === "gate_up");
  const [one] = gateUp;
  assert.ok(one?.kind === "linear");
  const panels = 2 * Math.ceil(one.outputs / 64) * 64 * one.inputs;
  for (const [phase, rows] of [
    ["prefill", 64],
    ["decode", 2],
  ] as const) {
    const ops = phases.find((each) => each.phase === phase)?.ops ?? [];
    const sum = ops.find(({ op }) => op === "linear gate_up");
    assert.equal(
      sum?.bytes,
      gateUp.length * (panels + 4 * rows * (one.inputs + one.outputs)),
      phase,
    );
    assert.equal(sum.flops, gateUp.length * 2 * rows * one.inputs * one.outputs, phase);
  }
});

/** Those that lie whole inside one of `outer`, to the nanosecond. */
function inside(events: TraceEvent[], outer: TraceEvent[]): TraceEvent[] {
  const ns = (us: number) => Math.round(us * 1000);
  const end = ({ ts, dur }: TraceEvent) => ns(ts) + ns(dur);
  return events.filter((event) =>
    outer.some((one) => ns(event.ts) >= ns(one.ts) && end(event) <= end(one)),
  );
}

function assertApart(events: TraceEvent[]): void {
  events.slice(1).forEach((event, i) => {
    const before = events[i];
    assert.ok(before);
    const gap = Math.round(event.ts * 1000) - Math.round((before.ts + before.dur) * 1000);
    assert.ok(gap >= 0, `${before.name} and ${event.name} overlap by ${-gap} ns`);
  });
}

test("profile: the trace is whole, its ops lie in steps, its steps in phases, none over another", async () => {
  const args = ["--batch", "2", "--prompt-len", "40", "--decode-len", "3", "--trace", tracePath];
  const { phases } = await profile("nvlm-d-tiny", args);
  const json = JSON.parse(await readFile(tracePath, "utf8")) as { traceEvents: TraceEvent[] };
  const of = (cat: string) => json.traceEvents.filter((event) => event.cat === cat);
  assert.deepEqual(
    of("phase").map(({ name }) => name),
    ["prefill", "decode"],
  );
  assert.deepEqual(
    of("step").map(({ name }) => name),
    ["prefill 1", "decode 1", "decode 2", "decode 3"],
  );
  const calls = phases.flatMap(({ ops }) => ops).reduce((sum, op) => sum + op.calls, 0);
  assert.equal(of("op").length, calls);
  assert.equal(inside(of("op"), of("step")).length, calls);
  assert.equal(inside(of("step"), of("phase")).length, 4);
  for (const cat of ["phase", "step", "op"]) assertApart(of(cat));
  assert.deepEqual(await readdir(folder), ["ops.json"]);
});

test("profile: the table names the ceilings, and every op with calls, time and shares", async () => {
  const args = ["--prompt-len", "16", "--decode-len", "2", "--threads", "1"];
  const command = ["profile", "--model", root("models/nvlm-d-tiny"), ...args];
  const { code, stdout, stderr } = await tessera(command, { deadlineMs: 120_000 });
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^ceilings of this run \(\w+, 1 thread\): reading [\d.]+ GB\/s, /);
  assert.match(stdout, /^[^\n]+ GB\/s, multiply-adds [\d.]+ GFLOP\/s\n/);
  assert.match(stdout, /^prefill: 16 tokens in 1 step of [\d.]+ ms, [\d.]+ tokens\/s$/m);
  assert.match(stdout, /^decode: 2 tokens in 2 steps of [\d.]+ ms, [\d.]+ tokens\/s$/m);
  assert.match(stdout, /^op +calls +ms +of the step +GB\/s +GFLOP\/s +of its ceiling$/m);
  assert.match(stdout, /^linear gate_up +8 +[\d.]+ +[\d.]+ % +[\d.]+ +[\d.]+ +[\d.]+ % {2}\w+$/m);
  assert.equal(stdout.match(/^between ops +[\d.]+ +[\d.]+ %$/gm)?.length, 2);
  assert.equal(stdout.match(/^all +[\d.]+ +100\.0 %$/gm)?.length, 2);
});

const model = ["--model", root("models/nvlm-d-tiny")];
const refused: [string, string[], RegExp][] = [
  ["no model", [], /--model/],
  ["a folder that is no model", ["--model", root("docs")], /config\.json: cannot be read/],
  ["no sequence", [...model, "--batch", "0"], /--batch.*1 to 1024/],
  [
    "more tokens than the context",
    [...model, "--prompt-len", "4096"],
    /max-model-len 4128: must be 1…4096/,
  ],
  ["more threads than there may be", [...model, "--threads", "2000"], /--threads.*1 to 1024/],
  ["a cache of another type", [...model, "--kv", "f64"], /--kv.*f32, bf16/],
  [
    "a trace that cannot be written",
    [...model, "--trace", join(folder, "none", "x")],
    /trace \S+x cannot be written: ENOENT/,
  ],
];
for (const [name, args, message] of refused)
  test(`profile: ${name} is refused by name, exit 1`, async () => {
    const { code, stdout, stderr } = await tessera(["profile", ...args]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, message);
  });
