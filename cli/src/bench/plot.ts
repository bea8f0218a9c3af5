/** Plots of a load and of a sweep. */
import { COLOURS, drawChart, textAt, type Chart, type Series } from "./chart.js";
import type { LoadReport } from "./measure.js";
import { objectiveText } from "./report-text.js";
import { percentileOf, type Summary } from "./statistics.js";
import type { SweepKind, SweepPoint } from "./sweep.js";

const WIDTH = 960;
const CHART_HEIGHT = 400;
const HEAD_HEIGHT = 62;
/** Characters that fit the width in their size. */
const MAX_TITLE = 78;
const MAX_SUBTITLE = 120;
/** A curve of a load's many values. */
const CURVE_POINTS = 200;

/** Values of one load behind its summaries, in milliseconds. */
export interface Distributions {
  ttftMs: readonly number[];
  tpotMs: readonly number[];
  itlMs: readonly number[];
  e2elMs: readonly number[];
}

export interface PlotText {
  title: string;
  /** What was asked of whom. */
  subtitle: string;
}

/** Below a clock's step a logarithm shows noise. */
const LEAST_MS = 0.01;

/** The share of values up to each of some of them. */
export function curveOf(values: readonly number[]): { x: number; y: number }[] {
  if (values.length === 0) return [];
  const sorted = [...values].sort((a, b) => a - b);
  const count = Math.min(CURVE_POINTS, sorted.length);
  const first = { x: Math.max(LEAST_MS, sorted[0] ?? LEAST_MS), y: 0 };
  const rest = Array.from({ length: count }, (_, i) => {
    const part = (i + 1) / count;
    return { x: Math.max(LEAST_MS, percentileOf(sorted, part)), y: part * 100 };
  });
  return [first, ...rest];
}

function shorten(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit - 2)} …`;
}

function document(charts: readonly Chart[], { title, subtitle }: PlotText): string {
  const height = HEAD_HEIGHT + charts.length * CHART_HEIGHT;
  const bodies = charts.map((chart, i) =>
    drawChart(chart, {
      x: 0,
      y: HEAD_HEIGHT + i * CHART_HEIGHT,
      width: WIDTH,
      height: CHART_HEIGHT,
    }),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    textAt(24, 28, shorten(title, MAX_TITLE), { size: 17, weight: "bold" }),
    textAt(24, 50, shorten(subtitle, MAX_SUBTITLE), { size: 12 }),
    ...bodies,
    "</svg>\n",
  ].join("\n");
}

/** Distributions of the four latencies. */
export function plotLoad(values: Distributions, text: PlotText): string {
  const curves: [string, readonly number[]][] = [
    ["ITL, between tokens", values.itlMs],
    ["TPOT, per token", values.tpotMs],
    ["TTFT, first token", values.ttftMs],
    ["E2EL, whole answer", values.e2elMs],
  ];
  const series = curves.flatMap(([name, list], i): Series[] =>
    list.length === 0 ? [] : [{ name, points: curveOf(list), colour: COLOURS[i] ?? COLOURS[0] }],
  );
  const chart: Chart = {
    title: "Latency distributions",
    x: { label: "milliseconds, logarithmic", scale: "log" },
    y: { label: "% at most so long", scale: "linear", most: 100 },
    series,
  };
  return document([chart], text);
}

function seriesOf(
  points: readonly SweepPoint[],
  name: string,
  of: (report: LoadReport) => number | undefined,
  look: { colour: string; dashed?: boolean },
): Series {
  const known = points.flatMap(({ value, report }) => {
    const y = of(report);
    return y === undefined ? [] : [{ x: value, y }];
  });
  return { name, points: known, ...look, dots: look.dashed !== true };
}

function throughputChart(points: readonly SweepPoint[], by: SweepKind, label: string): Chart {
  const [done, good, , offered] = COLOURS;
  const most = points.reduce((so, { report }) => Math.max(so, report.requestRate), 0);
  const all = [
    seriesOf(points, "answered", (report) => report.requestRate, { colour: done }),
    seriesOf(points, "within objective", (report) => report.goodput?.rate, { colour: good }),
    {
      // What was asked for, as far as the chart reaches.
      name: "offered",
      points: by === "rates" ? offeredLine(points, most * 1.25) : [],
      colour: offered,
      dashed: true,
    },
  ];
  const objective = points.find(({ report }) => report.goodput)?.report.goodput?.objective;
  const under = objective === undefined ? "" : `, objective ${objectiveText(objective)}`;
  return {
    title: `Throughput${under}`,
    x: { label, scale: "linear" },
    y: { label: "requests a second", scale: "linear" },
    series: all.filter((series) => series.points.length > 0),
  };
}

function offeredLine(points: readonly SweepPoint[], limit: number): { x: number; y: number }[] {
  const most = Math.min(limit, Math.max(...points.map(({ value }) => value)));
  return [
    { x: 0, y: 0 },
    { x: most, y: most },
  ];
}

function latencyChart(points: readonly SweepPoint[], label: string): Chart {
  const [itl, , ttft] = COLOURS;
  const of = (name: "ttftMs" | "itlMs", part: keyof Summary) => (report: LoadReport) => {
    const value = report[name]?.[part];
    return value === undefined ? undefined : Math.max(LEAST_MS, value);
  };
  const all = [
    seriesOf(points, "TTFT p99", of("ttftMs", "p99"), { colour: ttft }),
    seriesOf(points, "TTFT median", of("ttftMs", "median"), { colour: ttft, dashed: true }),
    seriesOf(points, "ITL p99", of("itlMs", "p99"), { colour: itl }),
    seriesOf(points, "ITL median", of("itlMs", "median"), { colour: itl, dashed: true }),
  ];
  return {
    title: "Latency",
    x: { label, scale: "linear" },
    y: { label: "milliseconds, logarithmic", scale: "log" },
    series: all.filter((series) => series.points.length > 0),
  };
}

/** Throughput and goodput over the swept setting, latencies below. */
export function plotSweep(points: readonly SweepPoint[], by: SweepKind, text: PlotText): string {
  const label = by === "rates" ? "offered requests a second" : "requests under way";
  const rising = [...points].sort((a, b) => a.value - b.value);
  return document([throughputChart(rising, by, label), latencyChart(rising, label)], text);
}

/** PNG of twice the pixels, so that small text stays sharp. */
export async function toPng(svg: string): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp");
  return sharp(Buffer.from(svg), { density: 144 }).png().toBuffer();
}
