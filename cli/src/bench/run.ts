/** `tessera bench serve` from checked settings to its reports. */
import { SingleBar } from "cli-progress";
import { SYSTEM_CLOCK } from "./clock.js";
import { runLoad, type LoadMode, type LoadResult } from "./load.js";
import { measure } from "./measure.js";
import { OutputFile } from "./output-file.js";
import { plotLoad, plotSweep, toPng, type PlotText } from "./plot.js";
import { prepare, type Prepared } from "./prepare.js";
import { reportJson, type JsonPoint } from "./report-json.js";
import { reportText, sweepText } from "./report-text.js";
import type { BenchFlags, BenchSettings } from "./settings.js";
import { promptsOf } from "./workload.js";

/** Requests of the warm-up that are under way at once. */
const WARMUP_CONCURRENCY = 8;

export interface RunContext {
  flags: BenchFlags;
  settings: BenchSettings;
  /** Ctrl-C: the report is of what is there. */
  signal: AbortSignal;
  /** stdout */
  print: (text: string) => void;
  /** stderr */
  note: (text: string) => void;
}

interface LoadSpec {
  mode: LoadMode;
  promptCount: number;
  durationMs: number | undefined;
  /** Names the load; each has prompts and arrivals of its own, so that no later one finds the caches of an earlier. */
  part: string;
}

/** The bar is on stderr, and only where that is a terminal. */
async function load(context: RunContext, prepared: Prepared, spec: LoadSpec): Promise<LoadResult> {
  const { flags, settings, signal } = context;
  const { target, fit, pictures, dataset } = prepared;
  const prompts = promptsOf(
    settings.workload,
    { fit, pictures, dataset: dataset?.lines },
    spec.part,
  );
  const format = `${spec.part} {bar} {value}/{total}`;
  const bar = new SingleBar({ format, noTTYOutput: false, stream: process.stderr });
  const total = Number.isFinite(spec.promptCount) ? spec.promptCount : 0;
  if (total > 0) bar.start(total, 0);
  try {
    const requestDeadlineMs = flags.requestTimeout * 1e3;
    return await runLoad(
      { ...spec, requestDeadlineMs, seed: flags.seed, details: flags.details === true },
      {
        target,
        prompts,
        clock: SYSTEM_CLOCK,
        signal,
        progress: () => void (total > 0 && bar.increment()),
      },
    );
  } finally {
    bar.stop();
  }
}

/** @throws Error when not one of the warm-up's requests is answered. */
async function warmUp(context: RunContext, prepared: Prepared): Promise<void> {
  const { warmup } = context.flags;
  if (warmup === 0) return;
  const concurrency = Math.min(warmup, WARMUP_CONCURRENCY);
  const mode = { kind: "closed", concurrency } as const;
  const spec = { mode, promptCount: warmup, durationMs: undefined, part: "warm-up" };
  const { records } = await load(context, prepared, spec);
  const failures = records.flatMap(({ failure }) => (failure === undefined ? [] : [failure]));
  const [first] = failures;
  if (first !== undefined && failures.length === records.length && !context.signal.aborted)
    throw new Error(
      `bench serve: no request of the warm-up was answered; the first: ${first.code}: ${first.message}`,
    );
}

interface Point extends JsonPoint {
  gapsMs: readonly number[];
  records: LoadResult["records"];
}

/** Each point of the sweep, or the one load; as far as the signal lets it come. */
async function runPoints(context: RunContext, prepared: Prepared): Promise<Point[]> {
  const { settings, flags, signal } = context;
  const { promptCount, durationMs, objective, sweep } = settings;
  const points: Point[] = [];
  for (const [i, { value, mode }] of settings.points.entries()) {
    if (signal.aborted) break;
    const part = value === undefined ? "load" : `load-${i}`;
    const result = await load(context, prepared, { mode, promptCount, durationMs, part });
    const report = measure(result, { mode, objective });
    const { records } = result;
    const requests = flags.details === true ? records : undefined;
    points.push({ value, report, requests, records, gapsMs: result.gaps.values });
    if (sweep !== undefined) context.note(`${sweep.by} ${value}: ${report.completed} answered\n`);
  }
  return points;
}

function sweepPoints(points: readonly Point[]) {
  return points.flatMap(({ value, report }) => (value === undefined ? [] : [{ value, report }]));
}

function plotOf(points: readonly Point[], context: RunContext, prepared: Prepared): string {
  const { sweep } = context.settings;
  const { inputLen, outputLen, imageShare, dataset } = context.flags;
  const { server } = prepared;
  const asked =
    dataset === undefined
      ? `input ${inputLen}, output ${outputLen} tokens, ${imageShare * 100} % with a picture`
      : "prompts of a data set";
  const text: PlotText = {
    title: `tessera bench serve: ${server.model}`,
    subtitle: `${server.kind} at ${server.address}; ${asked}`,
  };
  if (sweep !== undefined) return plotSweep(sweepPoints(points), sweep.by, text);
  const records = points.flatMap((point) => point.records);
  const of = (key: "ttftMs" | "tpotMs" | "e2elMs") =>
    records.map((record) => record[key]).filter((value) => value !== undefined);
  const itlMs = points.flatMap((point) => [...point.gapsMs]);
  return plotLoad(
    { ttftMs: of("ttftMs"), tpotMs: of("tpotMs"), itlMs, e2elMs: of("e2elMs") },
    text,
  );
}

interface Outputs {
  json: OutputFile | undefined;
  plot: OutputFile | undefined;
}

async function openOutputs({ json, plot }: BenchFlags): Promise<Outputs> {
  const first = json === undefined ? undefined : await OutputFile.open("--json", json);
  try {
    const second = plot === undefined ? undefined : await OutputFile.open("--plot", plot);
    return { json: first, plot: second };
  } catch (error) {
    await first?.discard();
    throw error;
  }
}

async function writeReports(
  context: RunContext,
  prepared: Prepared,
  { points, outputs, startedAt }: { points: Point[]; outputs: Outputs; startedAt: Date },
): Promise<void> {
  const { flags, settings, print } = context;
  if (settings.sweep === undefined) for (const { report } of points) print(reportText(report));
  else {
    print(sweepText(sweepPoints(points), settings.sweep.by));
    for (const { report } of points)
      for (const { code, count, message } of report.errors)
        context.note(`${code} (${count}): ${message}\n`);
  }
  const { fit, pictures, dataset, server } = prepared;
  const workload = {
    fit,
    pictureCount: pictures.length,
    pictureBytes: pictures.reduce((sum, { data }) => sum + data.length, 0),
    datasetSha256: dataset?.digest,
  };
  const jsonPoints = points.map(({ value, report, requests }) => ({ value, report, requests }));
  await outputs.json?.finish(
    reportJson({ startedAt, flags, server, workload, points: jsonPoints }),
  );
  if (outputs.plot === undefined) return;
  const svg = plotOf(points, context, prepared);
  await outputs.plot.finish(settings.plotFormat === "png" ? await toPng(svg) : svg);
}

/** Rejects when Ctrl-C comes; nobody may wait for it any more. */
function stopped({ signal }: RunContext): Promise<never> {
  const end = new Promise<never>((_, reject) => {
    const stop = () => reject(new Error("bench serve: interrupted before the load"));
    signal.addEventListener("abort", stop, { once: true });
  });
  end.catch(() => undefined);
  return end;
}

/** Resolves to whether some answer came. @throws Error before any load, when there can be none. */
export async function runBench(context: RunContext): Promise<boolean> {
  const outputs = await openOutputs(context.flags);
  let prepared: Prepared | undefined;
  try {
    prepared = await Promise.race([prepare(context.flags, context.settings), stopped(context)]);
    const { server } = prepared;
    const version = server.version === undefined ? "" : ` ${server.version}`;
    context.note(`${server.kind}${version} at ${server.address}, model ${server.model}\n`);
    await warmUp(context, prepared);
    if (context.signal.aborted) throw new Error("bench serve: interrupted before the load");
    const startedAt = new Date();
    const points = await runPoints(context, prepared);
    await writeReports(context, prepared, { points, outputs, startedAt });
    return points.some(({ report }) => report.completed > 0);
  } catch (error) {
    await outputs.json?.discard().catch(() => undefined);
    await outputs.plot?.discard().catch(() => undefined);
    throw error;
  } finally {
    await prepared?.target.close();
  }
}
