/** Spans as a collector gets them, log lines, exemplars; and that none of them says what a user wrote. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { Role } from "@tessera/client";
import { attributesOf, collect, type CollectedSpan } from "../harness/collector.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";
import { valueOf } from "../harness/prometheus.js";
import { rawGenerate, rawResume } from "../harness/raw-call.js";

const MARKER = "quincunx";
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT = "00f067aa0ba902b7";
const ROOT_NAME = "chat nvlm-d-tiny";

const collector = await collect();
after(() => collector.close());

const flags = ["--workers", "1", "--threads", "1", "--port", "0", "--no-http"];
const child = spawn(
  process.execPath,
  [
    root("cli/bin/tessera.js"),
    "up",
    "--model",
    root("models/nvlm-d-tiny"),
    ...flags,
    "--health-port",
    "0",
    "--log-level",
    "trace",
  ],
  {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint },
  },
);
let stderr = "";
child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
const closed = once(child, "close");
after(async () => {
  child.kill("SIGTERM");
  await closed;
});
const lines: string[] = [];
createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
await eventually("it says where it is", () => lines.length === 2, 60_000);
const said = lines.join("\n");
const [, address = "", metricsUrl = ""] =
  /^serving on (\S+)\nmetrics on (http:\/\/127\.0\.0\.1:[1-9]\d*\/metrics)$/.exec(said) ??
  assert.fail(said);

const picture = await readFile(root("models/documents/document-02.png"));
const asking = (text: string) => ({
  messages: [
    {
      role: Role.USER,
      parts: [
        { content: { case: "image" as const, value: { data: picture } } },
        { content: { case: "text" as const, value: text } },
      ],
    },
  ],
});
const texts = (text: string) => ({
  messages: [{ role: Role.USER, parts: [{ content: { case: "text" as const, value: text } }] }],
});

const OPEN = "application/openmetrics-text; version=1.0.0";
async function metrics(accept: string): Promise<{ type: string | null; text: string }> {
  const response = await fetch(metricsUrl, {
    headers: { accept },
    signal: AbortSignal.timeout(10_000),
  });
  return { type: response.headers.get("content-type"), text: await response.text() };
}

/** The request's span, and those under it by name. */
async function tracesOf(requestId: string) {
  const isRoot = (span: CollectedSpan) => attributesOf(span)["gen_ai.request.id"] === requestId;
  await eventually(`the span of ${requestId}`, () => collector.spans.some(isRoot));
  const span = collector.spans.find(isRoot) ?? assert.fail();
  const inside = () => collector.spans.filter(({ parentSpanId }) => parentSpanId === span.spanId);
  return { span, inside, named: (name: string) => inside().find((each) => each.name === name) };
}
const startOf = ({ startTimeUnixNano }: CollectedSpan) => BigInt(startTimeUnixNano);
const endOf = ({ endTimeUnixNano }: CollectedSpan) => BigInt(endTimeUnixNano);

interface LogLine {
  msg: string;
  requestId?: string;
  level: number;
  [key: string]: unknown;
}
const logged = (requestId: string) =>
  stderr
    .split("\n")
    .slice(0, -1)
    .filter((text) => text.includes(`"requestId":"${requestId}"`))
    .map((text) => JSON.parse(text) as LogLine);

test("a request with a picture: every phase is a span under the request's, which is under the caller's", async () => {
  const headers = { traceparent: `00-${TRACE}-${PARENT}-01` };
  const request = { ...asking("What is the total?"), requestId: "r-1", maxTokens: 8, minTokens: 8 };
  const events = await rawGenerate(address, request, headers);
  const [started] = events.flatMap(({ kind }) => (kind.case === "started" ? kind.value : []));
  const { span, inside, named } = await tracesOf("r-1");
  assert.deepEqual(
    [span.traceId, span.parentSpanId, span.name, span.kind, span.status.code],
    [TRACE, PARENT, ROOT_NAME, 2, 0],
  );
  const order = ["accept", "decode_image", "queue", "prefill", "decode"];
  const spans = order.map((name) => named(name) ?? assert.fail(name));
  assert.deepEqual(
    inside()
      .map(({ name }) => name)
      .sort(),
    [...order, "encode"].sort(),
  );
  for (const each of inside()) {
    assert.equal(each.traceId, TRACE);
    assert.ok(startOf(span) <= startOf(each) && startOf(each) <= endOf(each), each.name);
    assert.ok(endOf(each) <= endOf(span), each.name);
  }
  spans.slice(1).forEach((each, i) => {
    const before = spans[i] ?? assert.fail();
    assert.ok(endOf(before) <= startOf(each) + 1000n, `${before.name} before ${each.name}`);
  });
  const [queue, encode] = [spans[2] ?? assert.fail(), named("encode") ?? assert.fail()];
  assert.ok(startOf(queue) <= startOf(encode) && endOf(encode) <= endOf(queue));
  const attributes = attributesOf(span);
  assert.equal(attributes["gen_ai.request.model"], "nvlm-d-tiny");
  assert.equal(attributes["gen_ai.usage.output_tokens"], 8);
  assert.equal(attributes["gen_ai.request.max_tokens"], 8);
  assert.deepEqual(attributes["gen_ai.response.finish_reasons"], ["length"]);
  assert.equal(attributes["gen_ai.usage.input_tokens"], started?.promptTokens);
  assert.equal(attributes["tessera.request.tiles"], started?.tiles);
});

test("a request of text alone without a caller's trace: a trace of its own, no encode", async () => {
  await rawGenerate(address, { ...texts("Hello"), requestId: "r-2", maxTokens: 2 });
  const { span, inside } = await tracesOf("r-2");
  assert.equal(span.parentSpanId, undefined);
  assert.notEqual(span.traceId, TRACE);
  assert.ok(!inside().some(({ name }) => name === "encode"));
});

test("a caller that does not sample: nothing is sent of its request", async () => {
  const headers = { traceparent: `00-${TRACE}-${PARENT}-00` };
  await rawGenerate(address, { ...texts("Hello"), requestId: "r-3", maxTokens: 1 }, headers);
  await rawGenerate(address, { ...texts("Hello"), requestId: "r-4", maxTokens: 1 });
  await tracesOf("r-4");
  assert.ok(!collector.bodies.some((body) => body.includes('"r-3"')));
});

test("a refused request: its span has the code, and one that is resumed a span of that", async () => {
  const bad = { ...texts("Hello"), requestId: "r-5", n: 0 };
  await assert.rejects(rawGenerate(address, bad));
  await eventually("the refusal", () =>
    collector.spans.some((span) => attributesOf(span)["error.type"] === "INVALID_ARGUMENT"),
  );
  const kept = { ...texts("Hello"), requestId: "r-6", maxTokens: 4, minTokens: 4, resume: true };
  const events = await rawGenerate(address, kept);
  const [started] = events.flatMap(({ kind }) => (kind.case === "started" ? kind.value : []));
  const resumeToken = started?.resumeToken ?? assert.fail("no token");
  const again = await rawResume(address, { requestId: "r-6", resumeToken, fromIndex: 1n });
  assert.equal(again.length, events.length - 1);
  const { named } = await tracesOf("r-6");
  await eventually("the span of the resume", () => named("resume") !== undefined);
});

test("the log: a request's lines have its id, tokens and times, and a refusal its code", async () => {
  await eventually("the lines of r-1", () => logged("r-1").length === 2);
  const [accepted, finished] = logged("r-1");
  assert.deepEqual([accepted?.msg, accepted?.level], ["request accepted", 20]);
  assert.deepEqual([finished?.msg, finished?.level], ["request finished", 30]);
  assert.deepEqual([finished?.["reasons"], finished?.["completionTokens"]], [["length"], 8]);
  assert.equal(finished?.["traceId"], TRACE);
  for (const name of ["queueMs", "encodeMs", "ttftMs", "totalMs"])
    assert.ok(Number(finished?.[name]) > 0, name);
  assert.match(stderr, /"code":"INVALID_ARGUMENT","fields":\["n"\].*"msg":"request refused"/);
});

test("metrics: OpenMetrics for who accepts it, with exemplars of requests and traces; else Prometheus'", async () => {
  const open = await metrics(OPEN);
  assert.equal(open.type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
  assert.match(open.text, /# EOF\n$/);
  for (const name of ["time_to_first_token", "e2e_request_latency", "request_decode_time"]) {
    const bucket = new RegExp(
      `^tessera_${name}_seconds_bucket.* # \\{request_id="r-\\d",trace_id="[0-9a-f]{32}"\\} `,
      "m",
    );
    assert.match(open.text, bucket);
  }
  const plain = await metrics("text/plain");
  assert.equal(plain.type, "text/plain; version=0.0.4; charset=utf-8");
  assert.ok(!plain.text.includes("r-1"));
  const exported = () =>
    metrics(OPEN).then(({ text }) => {
      return valueOf(text, "tessera_trace_spans_total", { fate: "exported" });
    });
  await eventually("all spans are counted", async () => {
    return (await exported()) === collector.spans.length;
  });
  assert.equal(valueOf(plain.text, "tessera_trace_spans_total", { fate: "failed" }), 0);
  assert.equal(valueOf(plain.text, "tessera_streams_resumed_total"), 1);
  assert.equal(valueOf(plain.text, "tessera_kept_streams"), 1);
});

test("nothing that a user wrote or got stands in a log line, a span or a metric", async () => {
  const request = { ...texts(`${MARKER} ${MARKER}`), maxTokens: 8 };
  const stop = { stop: { texts: [`${MARKER} stops`] } };
  await rawGenerate(address, { ...request, ...stop, requestId: "r-7" });
  await assert.rejects(rawGenerate(address, { ...request, model: MARKER, requestId: "r-8" }));
  const broken = { data: Buffer.from(MARKER) };
  const parts = [{ content: { case: "image" as const, value: broken } }];
  const messages = [{ role: Role.USER, parts }];
  await assert.rejects(rawGenerate(address, { messages, requestId: "r-9" }));
  await assert.rejects(rawGenerate(address, { ...request, requestId: `${MARKER}!` }));
  await tracesOf("r-7");
  await tracesOf("r-9");
  await eventually("the lines of r-9", () => logged("r-9").length === 1);
  assert.ok(!stderr.includes(MARKER));
  assert.ok(!collector.bodies.join("").includes(MARKER));
  assert.ok(!(await metrics(OPEN)).text.includes(MARKER));
});
