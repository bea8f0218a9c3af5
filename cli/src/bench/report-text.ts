/** The report for people, in the shape of vLLM's. */
import { columns } from "../commands/text-table.js";
import { LATE_MS, type LoadReport } from "./measure.js";
import type { Objective } from "./goodput.js";
import type { Summary } from "./statistics.js";
import type { SweepPoint } from "./sweep.js";

const WIDTH = 58;
const LABEL = 44;

function heading(text: string, fill: string): string {
  const left = Math.floor((WIDTH - text.length) / 2);
  return `${fill.repeat(left)}${text}${fill.repeat(WIDTH - text.length - left)}`;
}

function row(label: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [`${`${label}:`.padEnd(LABEL)}${value}`];
}

function fixed(value: number | undefined): string | undefined {
  return value?.toFixed(2);
}

function latency(title: string, name: string, summary: Summary | undefined): string[] {
  if (summary === undefined) return [];
  return [
    heading(title, "-"),
    ...row(`Mean ${name} (ms)`, fixed(summary.mean)),
    ...row(`Median ${name} (ms)`, fixed(summary.median)),
    ...row(`P90 ${name} (ms)`, fixed(summary.p90)),
    ...row(`P95 ${name} (ms)`, fixed(summary.p95)),
    ...row(`P99 ${name} (ms)`, fixed(summary.p99)),
  ];
}

export function objectiveText(objective: Objective): string {
  return Object.entries(objective)
    .map(([name, limit]) => `${name} ≤ ${limit} ms`)
    .join(", ");
}

function counts(report: LoadReport): string[] {
  const { mode } = report;
  const asked =
    mode.kind === "closed"
      ? row("Maximum request concurrency", mode.concurrency)
      : [
          ...row("Request rate configured (req/s)", mode.rate === Infinity ? "inf" : mode.rate),
          ...(mode.burstiness === 1 ? [] : row("Burstiness", mode.burstiness)),
        ];
  const some = (label: string, count: number) => (count > 0 ? row(label, count) : []);
  return [
    ...row("Successful requests", report.completed),
    ...row("Failed requests", report.failed),
    ...some("  of these refused for want of room", report.refused),
    ...some("Ended by Ctrl-C", report.interrupted),
    ...some("Not sent, too many under way", report.notSent),
    ...asked,
    ...row("Peak concurrent requests", report.inFlightMost),
    ...row("Benchmark duration (s)", fixed(report.wallSeconds)),
    ...row("Total input tokens", report.inputTokens ?? "not said by the server"),
    ...(report.cachedTokens === undefined || report.cachedTokens === 0
      ? []
      : row("  of these from the prefix cache", report.cachedTokens)),
    ...row("Total generated tokens", report.outputTokens),
    ...row("Request throughput (req/s)", fixed(report.requestRate)),
    ...row("Request goodput (req/s)", fixed(report.goodput?.rate)),
    ...row("Input token throughput (tok/s)", fixed(report.inputTokenRate)),
    ...row("Output token throughput (tok/s)", fixed(report.outputTokenRate)),
  ];
}

function goodput({ goodput: good }: LoadReport): string[] {
  if (good === undefined) return [];
  return [
    heading("Goodput", "-"),
    ...row("Objective", objectiveText(good.objective)),
    ...row("Requests within it", `${good.count} (${(good.share * 100).toFixed(1)} %)`),
  ];
}

function errors(report: LoadReport): string[] {
  if (report.errors.length === 0) return [];
  const { refusalMs, retryAfterMs } = report;
  return [
    heading("Errors", "-"),
    ...report.errors.flatMap(({ code, count, message }) => [
      ...row(code, count),
      ...(message === "" ? [] : [`  ${message.replaceAll(/\s+/g, " ").slice(0, WIDTH * 2)}`]),
    ]),
    ...row("P99 time to a refusal (ms)", fixed(refusalMs?.p99)),
    ...(retryAfterMs === undefined
      ? []
      : row(
          "Retry after (s), least / median / most",
          [retryAfterMs.least, retryAfterMs.median, retryAfterMs.most]
            .map((ms) => (ms / 1e3).toFixed(2))
            .join(" / "),
        )),
  ];
}

function lateStarts({ lateStartMs: late, lateCount }: LoadReport): string[] {
  if (late === undefined) return [];
  return [
    heading("Starts behind schedule", "-"),
    ...row(
      "Median / P99 / most (ms)",
      `${[late.median, late.p99, late.most].map(fixed).join(" / ")}`,
    ),
    ...row(`More than ${LATE_MS} ms`, lateCount),
  ];
}

export function reportText(report: LoadReport): string {
  const title = report.wasInterrupted
    ? " Serving Benchmark Result, partial "
    : " Serving Benchmark Result ";
  const lines = [
    heading(title, "="),
    ...counts(report),
    ...latency("Time to First Token", "TTFT", report.ttftMs),
    ...latency("Time per Output Token (excl. 1st token)", "TPOT", report.tpotMs),
    ...latency("Inter-token Latency", "ITL", report.itlMs),
    ...latency("End-to-end Latency", "E2EL", report.e2elMs),
    ...goodput(report),
    ...errors(report),
    ...lateStarts(report),
    "=".repeat(WIDTH),
    ...report.notes.map((note) => `note: ${note}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** One line a point. */
export function sweepText(points: readonly SweepPoint[], by: "rates" | "concurrency"): string {
  const head = [
    by === "rates" ? "rate (req/s)" : "concurrency",
    "done (req/s)",
    "good (req/s)",
    "good (%)",
    "failed",
    "out (tok/s)",
    "TTFT p50",
    "TTFT p99",
    "ITL p50",
    "ITL p99",
    "E2EL p99",
  ];
  const rows = points.map(({ value, report }) => [
    String(value),
    report.requestRate.toFixed(2),
    report.goodput?.rate.toFixed(2) ?? "-",
    report.goodput === undefined ? "-" : (report.goodput.share * 100).toFixed(1),
    String(report.failed + report.notSent),
    report.outputTokenRate.toFixed(1),
    fixed(report.ttftMs?.median) ?? "-",
    fixed(report.ttftMs?.p99) ?? "-",
    fixed(report.itlMs?.median) ?? "-",
    fixed(report.itlMs?.p99) ?? "-",
    fixed(report.e2elMs?.p99) ?? "-",
  ]);
  const table = columns(
    [head, ...rows],
    head.map((_, i) => i),
  );
  return `${table.join("\n")}\nlatencies in milliseconds\n`;
}
