/** Engines begin and end without leaving threads behind, whoever holds on to what. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { openModel, planPlacement, rankProgram } from "@tessera/model";
import { attachExchange, openEngine, type Engine } from "@tessera/native/engine";
import { GREEDY } from "@tessera/native/engine";
import { root } from "../harness/paths.js";

const model = await openModel(root("models/nvlm-d-tiny"));
const tensors = await model.tensors();

function open(rank: number, size: number): Promise<Engine> {
  const program = rankProgram(model.config, { rank, size });
  return openEngine({ ...program, tensors, threads: 2 }, () => undefined);
}

async function begin(engine: Engine, size: number): Promise<void> {
  const plan = planPlacement(model.config, { size, kvType: "f32" });
  await engine.beginEpoch(1n, {
    ...plan,
    wireType: "f32",
    maxStepsInFlight: 1,
    selectableIds: 1024,
    collectiveDeadlineMs: 60_000,
  });
}

/** Threads of this process. */
async function threads(): Promise<number> {
  const text = await readFile("/proc/self/status", "utf8");
  return Number(/^Threads:\s+(\d+)$/m.exec(text)?.[1]);
}

/** Waits until the process has at most `count` threads. */
async function untilThreads(count: number): Promise<void> {
  const end = Date.now() + 10_000;
  while ((await threads()) > count) {
    assert.ok(Date.now() < end, `${await threads()} threads, must be at most ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function step(engine: Engine) {
  const slice = { sequenceId: 1n, startPosition: 0, tokenIds: [1, 2, 3], firstBlock: 0 };
  return engine.step({
    epoch: 1n,
    stepId: 1n,
    releasedStep: 0n,
    deadlineMs: 60_000,
    opened: [{ sequenceId: 1n, promptLength: 3, tokenIds: [], sampling: GREEDY }],
    closedSequenceIds: [],
    releasedEmbeddingIds: [],
    slices: [{ ...slice, blockIds: [0], imageRows: [], wanted: [] }],
  });
}

test("engines closed as soon as they are open leave no thread", async () => {
  await (await open(0, 1)).close();
  const before = await threads();
  for (let i = 0; i < 20; i++) await (await open(0, 1)).close();
  await untilThreads(before);
});

test("an engine that cannot load leaves no thread, and its promise says why", async () => {
  const before = await threads();
  const program = rankProgram(model.config, { rank: 0, size: 1 });
  for (let i = 0; i < 10; i++)
    await assert.rejects(
      openEngine({ ...program, tensors: {}, threads: 2 }, () => undefined),
      { code: "BAD_MODEL", message: /missing/ },
    );
  await untilThreads(before);
});

test("close settles a step that waits for a peer, then refuses everything, and may be called again", async () => {
  const engine = await open(0, 2);
  await begin(engine, 2);
  let detach = () => undefined as void;
  const sent = new Promise((resolve) => (detach = attachExchange(engine.handle, resolve)));
  const waiting = assert.rejects(step(engine), { code: "EPOCH_ENDED" });
  await sent;
  await engine.close();
  await waiting;
  assert.throws(() => engine.stats(), { code: "CLOSED" });
  await assert.rejects(async () => step(engine), { code: "CLOSED" });
  detach();
  await engine.close();
});

test("a thread that ends with its exchange attached: later frames fail the step, close works", async () => {
  const engine = await open(0, 2);
  await begin(engine, 2);
  const source = `
    import { parentPort, workerData } from "node:worker_threads";
    import { attachExchange } from ${JSON.stringify(import.meta.resolve("@tessera/native/engine"))};
    attachExchange(workerData, () => undefined);
    parentPort.postMessage("attached");
    setInterval(() => undefined, 1000);`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const worker = new Worker(url, { workerData: engine.handle });
  await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  assert.throws(() => attachExchange(engine.handle, () => undefined), /attached already/);
  await worker.terminate();
  await assert.rejects(step(engine), { code: "CLOSED", message: /not attached/ });
  await engine.close();
});

test("a process that exits while engines are open and busy ends by itself", async () => {
  const [modelUrl, engineUrl, folder] = [
    import.meta.resolve("@tessera/model"),
    import.meta.resolve("@tessera/native/engine"),
    root("models/nvlm-d-tiny"),
  ].map((text) => JSON.stringify(text));
  const source = `
    import { openModel, rankProgram } from ${modelUrl};
    import { openEngine } from ${engineUrl};
    const model = await openModel(${folder});
    const tensors = await model.tensors();
    const program = rankProgram(model.config, { rank: 0, size: 1 });
    const spec = { ...program, tensors, threads: 2 };
    for (let i = 0; i < 3; i++) void openEngine(spec, () => undefined);
    process.exit(7);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: "inherit",
    timeout: 20_000,
  });
  const ended = await new Promise((resolve) =>
    child.once("exit", (code, signal) => resolve([code, signal])),
  );
  assert.deepEqual(ended, [7, null]);
});
