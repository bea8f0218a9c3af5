import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { drawChart, scaleOf, tickText, type Axis } from "./chart.js";
import { measure } from "./measure.js";
import { curveOf, plotLoad, plotSweep, toPng } from "./plot.js";
import { sourceOf } from "./random.js";
import { answerOf } from "./records.fixture.js";
import { Reservoir } from "./statistics.js";

const LINEAR: Axis = { label: "x", scale: "linear" };
const LOG: Axis = { label: "x", scale: "log" };

for (const [axis, values, ticks] of [
  [LINEAR, [0, 8], [0, 2, 4, 6, 8]],
  [LINEAR, [3, 47], [0, 10, 20, 30, 40, 50]],
  [LINEAR, [0.07], [0, 0.02, 0.04, 0.06, 0.08]],
  [LINEAR, [0], [0, 0.2, 0.4, 0.6, 0.8, 1]],
  [LOG, [3, 47], [2, 5, 10, 20, 50]],
  [LOG, [10, 10], [10, 20]],
  [LOG, [0.02, 30_000], [0.1, 1, 10, 100, 1000, 10_000]],
  [LOG, [], [1, 2, 5, 10]],
] as const)
  test(`scaleOf: ${axis.scale} of ${values.join(" … ")} has ticks ${ticks.join(", ")}`, () => {
    const scale = scaleOf(axis, values);
    assert.deepEqual(scale.ticks, ticks);
    for (const value of values) {
      const place = scale.place(value);
      assert.ok(place >= 0 && place <= 1, `${value} at ${place}`);
    }
  });

for (const [value, text] of [
  [0.05, "0.05"],
  [1000, "1000"],
  [25_000, "25k"],
  [3_000_000, "3M"],
] as const)
  test(`tickText: ${value} is ${text}`, () => {
    assert.equal(tickText(value), text);
  });

test("curveOf: the share of values up to each, by nearest rank", () => {
  assert.deepEqual(curveOf([4, 1, 3, 2]), [
    { x: 1, y: 0 },
    { x: 1, y: 25 },
    { x: 2, y: 50 },
    { x: 3, y: 75 },
    { x: 4, y: 100 },
  ]);
  assert.equal(curveOf(Array.from({ length: 5000 }, (_, i) => i + 1)).length, 201);
});

interface Word {
  left: number;
  right: number;
  top: number;
  bottom: number;
  text: string;
}

/** Where each upright text stands, by a width a letter that DejaVu Sans does not pass on average. */
function wordsOf(svg: string): Word[] {
  const found = svg.matchAll(
    /<text x="([\d.]+)" y="([\d.]+)"[^>]*font-size="(\d+)"( font-weight="bold")? text-anchor="(\w+)"[^>]*fill="#222222">([^<]*)</g,
  );
  return [...found].map(([, x, y, size, bold, anchor, text = ""]) => {
    const width = text.length * Number(size) * (bold === undefined ? 0.64 : 0.72);
    const back = anchor === "end" ? width : anchor === "middle" ? width / 2 : 0;
    const left = Number(x) - back;
    const bottom = Number(y) + Number(size) * 0.25;
    return { left, right: left + width, top: Number(y) - Number(size), bottom, text };
  });
}

function assertApart(svg: string, { width, height }: { width: number; height: number }): void {
  const words = wordsOf(svg);
  assert.ok(words.length > 10, `${words.length} texts`);
  for (const [i, a] of words.entries()) {
    assert.ok(a.left >= 0 && a.right <= width && a.top >= 0 && a.bottom <= height, a.text);
    for (const b of words.slice(i + 1)) {
      const apart =
        a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
      assert.ok(apart, `${a.text} over ${b.text}`);
    }
  }
}

const TEXT = { title: "model <name> & more", subtitle: "tessera at 127.0.0.1:4000" };
const many = (scale: number) => Array.from({ length: 300 }, (_, i) => (i + 1) * scale);

test("plotLoad: a curve for each latency that there is, texts apart, an SVG that a reader takes", async () => {
  const svg = plotLoad({ ttftMs: many(2), tpotMs: [], itlMs: many(0.1), e2elMs: many(30) }, TEXT);
  assert.equal(svg.match(/<polyline /g)?.length, 3);
  assert.match(svg, /TTFT, first token/);
  assert.doesNotMatch(svg, /TPOT|NaN|undefined|Infinity/);
  assertApart(svg, { width: 960, height: 462 });
  const { format, width, height } = await sharp(await toPng(svg)).metadata();
  assert.deepEqual([format, width, height], ["png", 1920, 924]);
});

function pointOf(value: number, ttftMs: number) {
  const records = [0, 1, 2, 3].map((i) => ({ ...answerOf(i), ttftMs: ttftMs * (i + 1) }));
  const gaps = new Reservoir(10, sourceOf(0, "gaps"));
  for (const gap of [5, 9]) gaps.add(gap);
  const load = { records, gaps, wallMs: 4000 / value, inFlightMost: 1, interrupted: false };
  const mode = { kind: "open", rate: value, burstiness: 1 } as const;
  return { value, report: measure(load, { mode, objective: { ttft: 100, itl: 20 } }) };
}

test("plotSweep: throughput, goodput and what was offered above, latencies below, texts apart", () => {
  const points = [pointOf(1, 10), pointOf(2, 30), pointOf(8, 200)];
  const svg = plotSweep(points, "rates", TEXT);
  assert.equal(svg.match(/<polyline /g)?.length, 7);
  for (const name of ["answered", "within objective", "offered", "TTFT p99", "ITL median"])
    assert.match(svg, new RegExp(`>${name}<`));
  assert.match(svg, /objective ttft ≤ 100 ms, itl ≤ 20 ms/);
  assertApart(svg, { width: 960, height: 862 });
});

test("plotSweep: of concurrency nothing is offered; a point without answers leaves a gap, no NaN", () => {
  const empty = { records: [], wallMs: 0, inFlightMost: 0, interrupted: true };
  const load = { ...empty, gaps: new Reservoir(1, sourceOf(0, "gaps")) };
  const mode = { kind: "closed", concurrency: 4 } as const;
  const none = { value: 4, report: measure(load, { mode, objective: undefined }) };
  const svg = plotSweep([pointOf(1, 10), none], "concurrency", TEXT);
  assert.doesNotMatch(svg, /offered|NaN|undefined|Infinity/);
});

test("drawChart: what a name holds of XML is text", () => {
  const series = [{ name: '<b>&"', colour: "#000000", points: [{ x: 1, y: 1 }] }];
  const chart = { title: "t", x: LINEAR, y: LINEAR, series };
  const svg = drawChart(chart, { x: 0, y: 0, width: 500, height: 300 });
  assert.match(svg, /&lt;b&gt;&amp;&quot;/);
});
