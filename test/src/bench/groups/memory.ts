/** Peak memory of each process against the plan. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import {
  COORDINATOR_BYTES,
  openModel,
  planPlacement,
  PROCESS_BYTES,
  type CoordinatorPlan,
  type KvType,
} from "@tessera/model";
import { peakBytes, rssBytes, sharedBytes } from "../../harness/memory.js";
import { root } from "../../harness/paths.js";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { benchModels, MAX_MODEL_LEN, type BenchModel } from "../models.js";
import { startBench, stream, type BenchCluster } from "../serve.js";

const WORKERS = [1, 2];
const CACHES = ["f32", "int8"] as const;
const GOAL = { atMost: 1.05 };
const DEADLINE_MS = 30_000;

/** Starts a process of the command, waits for its line, and measures it as it waits. */
async function idleBytes(args: string[]): Promise<number> {
  const child: ChildProcess = spawn(
    process.execPath,
    [root("cli/bin/tessera.js"), ...args, "--log-level", "fatal", "--end-with-stdin"],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
  const ended = once(child, "exit");
  try {
    if (child.stdout === null) throw new Error("no stdout");
    const first = once(createInterface({ input: child.stdout }), "line");
    await Promise.race([
      first,
      ended.then(([code]) => Promise.reject(new Error(`${args[0]} ended with ${String(code)}`))),
    ]);
    return await rssBytes(child.pid ?? 0);
  } finally {
    child.kill("SIGTERM");
    await ended;
    clearTimeout(timer);
  }
}

async function idle(): Promise<Figure[]> {
  const model = ["--model", root("models/nvlm-d-tiny"), "--listen", "127.0.0.1:0"];
  const worker = await idleBytes(["worker", ...model]);
  // Port 1 refuses: the coordinator waits for its worker.
  const front = await idleBytes(["coordinator", ...model, "--workers", "127.0.0.1:1"]);
  const measure = (of: string) =>
    `resident bytes of ${of} that waits, to the plan's line for the process`;
  const unit = "ratio";
  return [
    figure(
      {
        name: "memory.idle.worker",
        value: worker / PROCESS_BYTES,
        unit,
        measure: measure("a worker"),
      },
      GOAL,
    ),
    figure(
      {
        name: "memory.idle.coordinator",
        value: front / COORDINATOR_BYTES,
        unit,
        measure: measure("a coordinator with the tiny model's tokenizer"),
      },
      GOAL,
    ),
  ];
}

/** Streams, a long prompt, and for the tiny model pictures: everything the plan has room for is used once. */
async function load({ client, model }: BenchCluster): Promise<void> {
  const streams = Array.from({ length: 32 }, (_, i) =>
    stream(client, { promptTokens: 48, maxTokens: 8, seed: i }),
  );
  await Promise.all([...streams, stream(client, { promptTokens: 1024, maxTokens: 2, seed: 99 })]);
  if (model.name !== "tiny") return;
  const data = await readFile(root("models/documents/document-18.png"));
  const parts = [
    { content: { case: "image" as const, value: { data } } },
    { content: { case: "text" as const, value: "What is the total?" } },
  ];
  const picture = () =>
    client.generateOnce({ messages: [{ role: Role.USER, parts }], maxTokens: 8 });
  await Promise.all(Array.from({ length: 8 }, picture));
}

function frontBytes(front: CoordinatorPlan): number {
  return front.processBytes + front.tokenizerBytes + front.trafficBytes + front.pictureBytes;
}

async function measure(model: BenchModel, workers: number, kvType: KvType): Promise<Figure[]> {
  const { config } = await openModel(model.dir);
  const plan = planPlacement(config, { size: workers, kvType, maxModelLen: MAX_MODEL_LEN });
  const planned = [
    frontBytes(plan.coordinator),
    ...plan.ranks.map(
      (rank) =>
        rank.weightBytes +
        rank.cacheBytes +
        rank.workspaceBytes +
        rank.processBytes +
        rank.trafficBytes,
    ),
  ];
  const bench = await startBench(model, workers, { kv: kvType });
  try {
    await load(bench);
    const pids = bench.cluster.pids();
    const peaks = await Promise.all(pids.map(peakBytes));
    const shared = await Promise.all(pids.map(sharedBytes));
    const name = `memory.${model.name}.${workers}w${kvType === "f32" ? "" : `.${kvType}`}`;
    const parts = ["coordinator", ...plan.ranks.map(({ rank }) => `rank${rank}`)];
    const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
    const unit = "ratio";
    return [
      ...parts.map((part, i) =>
        figure(
          {
            name: `${name}.${part}`,
            value: (peaks[i] ?? NaN) / (planned[i] ?? NaN),
            unit,
            measure: `peak resident bytes (${((peaks[i] ?? NaN) / 1e6).toFixed(0)} MB), to the plan's`,
          },
          GOAL,
        ),
      ),
      figure(
        {
          name: `${name}.total`,
          value: (sum(peaks) - sum(shared)) / sum(planned),
          unit,
          measure: "peaks of all processes, pages that several map counted once, to the plan's sum",
        },
        GOAL,
      ),
    ];
  } finally {
    await bench.stop();
  }
}

export async function memory({ models, log }: BenchContext): Promise<Figure[]> {
  const figures = await idle();
  for (const model of benchModels(models))
    for (const workers of WORKERS)
      for (const kvType of CACHES) figures.push(...(await measure(model, workers, kvType)));
  for (const { name, value } of figures) log(`${name}: ${value.toFixed(3)}`);
  return figures;
}
