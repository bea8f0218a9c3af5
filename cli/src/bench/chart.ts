/** A chart of lines as SVG: axes with round numbers, a legend beside the lines, nothing over anything else. */

export interface Series {
  name: string;
  points: readonly { x: number; y: number }[];
  colour: string;
  dashed?: boolean;
  /** A dot at each point. */
  dots?: boolean;
}

export interface Axis {
  label: string;
  scale: "linear" | "log";
  /** Of a linear axis, where it is not what the values need; it begins at 0. */
  most?: number;
}

export interface Chart {
  title: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Room for the title above, the labels left and below, the legend right. */
const MARGIN = { top: 40, right: 212, bottom: 54, left: 76 };
const FONT = "DejaVu Sans, Helvetica, Arial, sans-serif";
const GRID = "#e3e3e3";
const INK = "#222222";
const LEGEND_ROW = 22;
const TICKS = 6;
/** Characters that the room on the right holds. */
const MAX_LEGEND_NAME = 19;

export const COLOURS = ["#0b62a4", "#d1495b", "#2e8540", "#8a5a9e", "#c47f00"] as const;

function escapeXml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replaceAll(/[&<>"]/g, (letter) => names[letter] ?? letter);
}

interface TextOptions {
  anchor?: "start" | "middle" | "end";
  size?: number;
  weight?: "bold";
  turned?: boolean;
}

export function textAt(x: number, y: number, text: string, options: TextOptions = {}): string {
  const { anchor = "start", size = 13, weight, turned } = options;
  const turn = turned === true ? ` transform="rotate(-90 ${round(x)} ${round(y)})"` : "";
  const bold = weight === undefined ? "" : ` font-weight="${weight}"`;
  return (
    `<text x="${round(x)}" y="${round(y)}" font-family="${FONT}" font-size="${size}"${bold} ` +
    `text-anchor="${anchor}" fill="${INK}"${turn}>${escapeXml(text)}</text>`
  );
}

function round(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** 1, 2 or 5 times a power of ten, so that about `count` steps make the span. */
function stepOf(span: number, count: number): number {
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return ([1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) ?? 10) * power;
}

export interface Scale {
  ticks: number[];
  /** 0 … 1 along the axis. */
  place: (value: number) => number;
}

function linearScale(most: number): Scale {
  const step = stepOf(most > 0 ? most : 1, TICKS);
  const count = Math.max(1, Math.ceil((most > 0 ? most : 1) / step - 1e-9));
  const ticks = Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(12)));
  return { ticks, place: (value) => value / (count * step) };
}

const LOG_STEPS = [1, 2, 5];

/** From a round number at or below the least value to one at or above the most. */
function logScale(values: readonly number[]): Scale {
  const above = values.filter((value) => value > 0);
  const [least, most] = [Math.min(1e9, ...above), Math.max(...above, 0)];
  if (above.length === 0) return logScale([1, 10]);
  const from = Math.floor(Math.log10(least));
  const to = Math.ceil(Math.log10(most)) + 1;
  const all = Array.from({ length: to - from + 1 }, (_, i) => from + i).flatMap((power) =>
    LOG_STEPS.map((factor) => Number((factor * 10 ** power).toPrecision(3))),
  );
  const first = Math.max(
    0,
    all.findLastIndex((tick) => tick <= least * 1.0001),
  );
  const end = all.findIndex((tick) => tick >= most * 0.9999);
  const last = Math.max(first + 1, end);
  const used = all.slice(first, last + 1);
  const [low, high] = [Math.log10(used[0] ?? 1), Math.log10(used.at(-1) ?? 10)];
  const place = (value: number) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  // Over more than three decades 1, 2, 5 stand too close: powers of ten alone.
  const isPower = (tick: number) => Math.abs(Math.log10(tick) % 1) < 1e-6;
  return { ticks: used.length > 10 ? used.filter(isPower) : used, place };
}

export function scaleOf(axis: Axis, values: readonly number[]): Scale {
  if (axis.scale === "log") return logScale(values);
  return linearScale(axis.most ?? values.reduce((most, value) => Math.max(most, value), 0));
}

/** Short: 1000 is 1k. */
export function tickText(value: number): string {
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function lineOf(series: Series, at: (point: { x: number; y: number }) => [number, number]): string {
  const places = series.points.map(at);
  const points = places.map(([x, y]) => `${round(x)},${round(y)}`).join(" ");
  const dash = series.dashed === true ? ' stroke-dasharray="6 4"' : "";
  const line = `<polyline points="${points}" fill="none" stroke="${series.colour}" stroke-width="2"${dash}/>`;
  const dots = places.map(
    ([x, y]) => `<circle cx="${round(x)}" cy="${round(y)}" r="3.5" fill="${series.colour}"/>`,
  );
  return [line, ...(series.dots === true ? dots : [])].join("\n");
}

function legendOf(series: readonly Series[], { x, y }: { x: number; y: number }): string[] {
  return series.flatMap(({ name, colour, dashed }, i) => {
    const middle = y + i * LEGEND_ROW;
    const dash = dashed === true ? ' stroke-dasharray="6 4"' : "";
    return [
      `<line x1="${round(x)}" y1="${round(middle)}" x2="${round(x + 24)}" y2="${round(middle)}" ` +
        `stroke="${colour}" stroke-width="2.5"${dash}/>`,
      textAt(x + 32, middle + 4.5, name.slice(0, MAX_LEGEND_NAME)),
    ];
  });
}

/** The chart within `box`. */
export function drawChart(chart: Chart, box: Box): string {
  const left = box.x + MARGIN.left;
  const top = box.y + MARGIN.top;
  const width = box.width - MARGIN.left - MARGIN.right;
  const height = box.height - MARGIN.top - MARGIN.bottom;
  const points = chart.series.flatMap((series) => series.points);
  const xs = scaleOf(
    chart.x,
    points.map(({ x }) => x),
  );
  const ys = scaleOf(
    chart.y,
    points.map(({ y }) => y),
  );
  const across = (value: number) => left + xs.place(value) * width;
  const up = (value: number) => top + height - ys.place(value) * height;
  const line = (x1: number, y1: number, x2: number, y2: number, colour: string) =>
    `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${colour}"/>`;
  return [
    textAt(left + width / 2, box.y + 22, chart.title, {
      anchor: "middle",
      size: 15,
      weight: "bold",
    }),
    ...xs.ticks.flatMap((tick) => [
      line(across(tick), top, across(tick), top + height, GRID),
      textAt(across(tick), top + height + 19, tickText(tick), { anchor: "middle", size: 12 }),
    ]),
    ...ys.ticks.flatMap((tick) => [
      line(left, up(tick), left + width, up(tick), GRID),
      textAt(left - 8, up(tick) + 4, tickText(tick), { anchor: "end", size: 12 }),
    ]),
    line(left, top, left, top + height, INK),
    line(left, top + height, left + width, top + height, INK),
    textAt(left + width / 2, top + height + 42, chart.x.label, { anchor: "middle" }),
    textAt(box.x + 20, top + height / 2, chart.y.label, { anchor: "middle", turned: true }),
    ...chart.series.map((series) => lineOf(series, ({ x, y }) => [across(x), up(y)])),
    ...legendOf(chart.series, { x: left + width + 20, y: top + 10 }),
  ].join("\n");
}
