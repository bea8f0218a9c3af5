/** The coordinator's own time of a step while 16 or 64 sequences decode. */
import { readFile } from "node:fs/promises";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { benchModels } from "../models.js";
import { scrape, startBench, stream, type BenchCluster } from "../serve.js";
import { median } from "../statistics.js";

const SEQUENCES = [16, 64];
const TOKENS = 220;
/** Both scrapes fall between these tokens of the first stream: all sequences run. */
const FROM_TOKEN = 20;
const TO_TOKEN = 200;
const WORKERS = 2;
const METRIC = "tessera_coordinator_step_seconds";
/** Of /proc/PID/stat: USER_HZ is 100 on Linux. */
const TICK_MS = 10;

async function cpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

const LAG = "tessera_event_loop_lag_p99_seconds";

interface Sample {
  lag: number;
  sum: number;
  count: number;
  cpu: number;
}

async function sample({ cluster }: BenchCluster): Promise<Sample> {
  const names = [`${METRIC}_sum`, `${METRIC}_count`, LAG];
  const [sum = NaN, count = NaN, lag = NaN] = await scrape(cluster, names);
  return { sum, count, lag, cpu: await cpuMs(cluster.pids()[0] ?? 0) };
}

async function round(bench: BenchCluster, sequences: number, seed: number) {
  const samples: Promise<Sample>[] = [];
  const onToken = (index: number) => {
    if (index === FROM_TOKEN || index === TO_TOKEN) samples.push(sample(bench));
  };
  const request = { promptTokens: 16, maxTokens: TOKENS };
  await Promise.all(
    Array.from({ length: sequences }, (_, i) =>
      stream(bench.client, {
        ...request,
        seed: seed * sequences + i,
        ...(i === 0 ? { onToken } : {}),
      }),
    ),
  );
  const [from, to] = await Promise.all(samples);
  if (from === undefined || to === undefined) throw new Error("two scrapes are needed");
  const steps = to.count - from.count;
  const stepMs = ((to.sum - from.sum) * 1e3) / steps;
  return { stepMs, cpuMs: (to.cpu - from.cpu) / steps, lagMs: to.lag * 1e3 };
}

function figuresOf(
  sequences: number,
  of: { stepMs: number; cpuMs: number; lagMs: number },
): Figure[] {
  const load = `${sequences} sequences decode on nvlm-d-tiny with ${WORKERS} workers`;
  return [
    figure(
      {
        name: `coordinator.step_ms.${sequences}`,
        value: of.stepMs,
        unit: "ms",
        measure: `${METRIC} (scheduling, plan, sampling, events) a step while ${load}`,
      },
      { atMost: 1 },
    ),
    figure({
      name: `coordinator.cpu_ms.${sequences}`,
      value: of.cpuMs,
      unit: "ms",
      measure: `processor time of the whole coordinator process, gRPC included, a step while ${load}`,
    }),
    figure({
      name: `coordinator.event_loop_lag_p99.${sequences}`,
      value: of.lagMs,
      unit: "ms",
      measure: `${LAG} while ${load}`,
    }),
  ];
}

export async function coordinator({ rounds, log }: BenchContext): Promise<Figure[]> {
  const [tiny] = benchModels(["tiny"]);
  if (tiny === undefined) throw new Error("the tiny model is missing");
  const bench = await startBench(tiny, WORKERS);
  try {
    const figures: Figure[] = [];
    for (const sequences of SEQUENCES) {
      const results = [];
      await round(bench, sequences, rounds); // warms up
      for (let i = 0; i < rounds; i++) results.push(await round(bench, sequences, i));
      const stepMs = median(results.map((result) => result.stepMs));
      log(`coordinator: ${stepMs.toFixed(3)} ms a step of ${sequences}`);
      const cpuMs = median(results.map((result) => result.cpuMs));
      const lagMs = median(results.map((result) => result.lagMs));
      figures.push(...figuresOf(sequences, { stepMs, cpuMs, lagMs }));
    }
    return figures;
  } finally {
    await bench.stop();
  }
}
