import assert from "node:assert/strict";
import { test } from "node:test";
import { CLIENT_LIMIT, INTERRUPTED, type LoadResult } from "./load.js";
import { measure } from "./measure.js";
import { sourceOf } from "./random.js";
import type { Failure, RequestRecord } from "./record.js";
import { answerOf } from "./records.fixture.js";
import { reportText, sweepText } from "./report-text.js";
import { Reservoir } from "./statistics.js";

const OPEN = { kind: "open", rate: 1, burstiness: 1 } as const;

function failedOf(index: number, failure: Partial<Failure>): RequestRecord {
  const all = { code: "http_500", message: "broken", refused: false, retryAfterMs: undefined };
  const none = { ttftMs: undefined, e2elMs: undefined, tpotMs: undefined, itlP99Ms: undefined };
  return { ...answerOf(index), ...none, failure: { ...all, ...failure } };
}

function loadOf(records: RequestRecord[], gapsMs: number[] = [10, 20], limit = 100): LoadResult {
  const gaps = new Reservoir(limit, sourceOf(0, "gaps"));
  for (const gap of gapsMs) gaps.add(gap);
  return { records, gaps, wallMs: 10_000, inFlightMost: 3, interrupted: false };
}

const answers = Array.from({ length: 10 }, (_, i) => ({ ...answerOf(i), ttftMs: (i + 1) * 10 }));

test("measure: counts, rates over the wall time, percentiles of whole answers", () => {
  const report = measure(loadOf(answers), { mode: OPEN, objective: { ttft: 70 } });
  const { completed, failed, inputTokens, outputTokens, requestRate, outputTokenRate } = report;
  assert.deepEqual([completed, failed, inputTokens, outputTokens], [10, 0, 640, 80]);
  assert.deepEqual([requestRate, report.inputTokenRate, outputTokenRate], [1, 64, 8]);
  const { median, p90, p99 } = report.ttftMs ?? assert.fail();
  assert.deepEqual([median, p90, p99, report.itlMs?.mean], [55, 90, 100, 15]);
  assert.deepEqual(report.goodput, { objective: { ttft: 70 }, count: 7, share: 0.7, rate: 0.7 });
  assert.deepEqual(report.notes, []);
});

test("measure: failures by code, refusals apart with the time to come again and how fast they came", () => {
  const refused = (index: number, retryAfterMs: number | undefined, tookMs: number) => ({
    ...failedOf(index, { code: "http_429", message: "full", refused: true, retryAfterMs }),
    endMs: index * 1000 + tookMs,
  });
  const records = [
    answerOf(0),
    refused(1, 1000, 4),
    refused(2, 3000, 6),
    refused(3, undefined, 8),
    failedOf(4, {}),
    failedOf(5, { code: INTERRUPTED }),
    failedOf(6, { code: CLIENT_LIMIT }),
  ];
  const report = measure(loadOf(records), { mode: OPEN, objective: { e2el: 200 } });
  const { completed, failed, refused: full, interrupted, notSent } = report;
  assert.deepEqual([completed, failed, full, interrupted, notSent], [1, 4, 3, 1, 1]);
  assert.deepEqual(report.errors[0], { code: "http_429", count: 3, message: "full" });
  assert.deepEqual([report.retryAfterMs?.count, report.retryAfterMs?.mean], [2, 2000]);
  assert.deepEqual([report.refusalMs?.median, report.refusalMs?.most], [6, 8]);
  assert.equal(report.goodput?.share, 1 / 6);
});

test("measure: starts behind schedule are of open loops", () => {
  const late = answers.map((record, i) => ({ ...record, startMs: record.scheduledMs + i * 3 }));
  const open = measure(loadOf(late), { mode: OPEN, objective: undefined });
  assert.deepEqual([open.lateStartMs?.most, open.lateCount], [27, 6]);
  const mode = { kind: "closed", concurrency: 2 } as const;
  const closed = measure(loadOf(late), { mode, objective: undefined });
  assert.deepEqual([closed.lateStartMs, closed.lateCount], [undefined, 0]);
});

for (const [what, change, note] of [
  ["another length", { outputTokens: 3 }, /10 of 10 answers are not of the asked length/],
  ["no usage", { outputEstimated: true }, /10 answers came without usage or token ids/],
  ["long chunks", { gapsBetween: "chunks", chunkCount: 4 }, /chunks have 2.00 tokens/],
  ["longer prompts", { inputTokens: 80 }, /prompts have 80 tokens on average, 64 were asked/],
] as [string, Partial<RequestRecord>, RegExp][])
  test(`measure: answers of ${what} are noted`, () => {
    const changed = answers.map((record) => ({ ...record, ...change }));
    const { notes } = measure(loadOf(changed), { mode: OPEN, objective: undefined });
    assert.equal(notes.length, 1, notes.join("; "));
    assert.match(notes[0] ?? "", note);
  });

test("measure: a sample of the gaps is noted", () => {
  const { notes } = measure(loadOf(answers, [1, 2, 3], 2), { mode: OPEN, objective: undefined });
  assert.deepEqual(notes, ["inter-token latency is of a sample of 2 of 3 gaps"]);
});

test("measure: an answer whose prompt was not counted leaves the input tokens unknown", () => {
  const [first, ...rest] = answers;
  const records = [{ ...(first ?? answerOf(0)), inputTokens: undefined }, ...rest];
  const report = measure(loadOf(records), { mode: OPEN, objective: undefined });
  assert.deepEqual([report.inputTokens, report.inputTokenRate], [undefined, undefined]);
  assert.match(reportText(report), /Total input tokens: +not said by the server/);
});

test("measure: no request at all is a report of zeros", () => {
  const load = { ...loadOf([], []), wallMs: 0 };
  const report = measure(load, { mode: OPEN, objective: { ttft: 1 } });
  assert.deepEqual([report.requestRate, report.goodput?.share, report.ttftMs], [0, 0, undefined]);
  assert.match(reportText(report), /Successful requests: +0\n/);
});

test("reportText: each number with its label; the parts that hold nothing are left out", () => {
  const report = measure(loadOf(answers), { mode: OPEN, objective: { ttft: 70 } });
  const text = reportText(report);
  for (const line of [
    /^=+ Serving Benchmark Result =+$/m,
    /^Successful requests: +10$/m,
    /^Request rate configured \(req\/s\): +1$/m,
    /^Request throughput \(req\/s\): +1.00$/m,
    /^Request goodput \(req\/s\): +0.70$/m,
    /^Output token throughput \(tok\/s\): +8.00$/m,
    /^Median TTFT \(ms\): +55.00$/m,
    /^P99 TTFT \(ms\): +100.00$/m,
    /^P90 ITL \(ms\): +20.00$/m,
    /^Requests within it: +7 \(70.0 %\)$/m,
  ])
    assert.match(text, line);
  assert.doesNotMatch(text, /Errors|refused|Ctrl-C|Not sent|partial/);
  assert.equal(
    new Set(
      text
        .split("\n")
        .filter((line) => /^[=-]/.test(line))
        .map((l) => l.length),
    ).size,
    1,
  );
});

test("sweepText: one line a point, numbers under their heads", () => {
  const report = measure(loadOf(answers), { mode: OPEN, objective: { ttft: 70 } });
  const [head, line] = sweepText([{ value: 4, report }], "rates").split("\n");
  assert.match(head ?? "", /^rate \(req\/s\) +done \(req\/s\) +good \(req\/s\)/);
  assert.match(line ?? "", /^ +4 +1.00 +0.70 +70.0 +0 +8.0 +55.00 +100.00/);
  assert.equal(line?.length, head?.length);
});
