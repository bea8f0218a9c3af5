/** `tessera bench serve` against a real cluster, and against an OpenAI-shaped server that misbehaves as asked. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import sharp from "sharp";
import { serve } from "../harness/cluster.js";
import { tessera } from "../harness/command.js";
import { eventually } from "../harness/eventually.js";
import { serveInProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";
import { certificates } from "../security/certificates.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-bench-"));
after(() => rm(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

interface Report {
  completed: number;
  failed: number;
  refused: number;
  interrupted: number;
  outputTokens: number;
  inFlightMost: number;
  goodput?: { count: number };
  ttftMs?: { count: number };
  itlMs?: { count: number };
  retryAfterMs?: { count: number; mean: number };
  errors: { code: string; count: number }[];
  notes: string[];
}

interface Request {
  pictureCount: number;
  prefix?: number;
  inputTokens: number;
  outputTokens: number;
  wantedOutputTokens: number;
  gapsMs?: number[];
  failure?: { code: string };
}

interface Json {
  server: { kind: string; model: string; version?: string };
  settings: Record<string, unknown>;
  points: { value?: number; report: Report; requests?: Request[] }[];
}

async function jsonOf(name: string): Promise<Json> {
  return JSON.parse(await readFile(at(name), "utf8")) as Json;
}

/** The only report of a load. */
async function reportOf(name: string): Promise<Report> {
  return (await jsonOf(name)).points[0]?.report ?? assert.fail(`${name} has no report`);
}

const bench = (args: string[], environment: Record<string, string> = {}) =>
  tessera(["bench", "serve", ...args], { environment, deadlineMs: 120_000 });

const SMALL = ["--input-len", "48:8", "--output-len", "6:2", "--warmup", "2"];

test("a cluster by gRPC: exact lengths, pictures, prefixes, goodput, a plot; the key is written nowhere", async () => {
  const served = await serve(1);
  after(served.stop);
  const server = ["--server", served.cluster.address, ...SMALL];
  const pictures = ["--image-share", "0.5", "--image-size", "112x112,224x112"];
  const prefixes = ["--prefix-share", "0.5", "--prefix-len", "16", "--prefix-count", "2"];
  const outputs = ["--json", at("grpc.json"), "--details", "--plot", at("grpc.svg")];
  const load = ["--concurrency", "3", "--num-prompts", "16", "--goodput", "e2el:600000"];
  const key = "sesame-of-the-test";
  const { code, stdout, stderr } = await bench(
    [...server, ...pictures, ...prefixes, ...load, ...outputs],
    { TESSERA_API_KEY: key },
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^Successful requests: +16$/m);
  assert.match(stdout, /^Requests within it: +16 \(100.0 %\)$/m);
  const json = await jsonOf("grpc.json");
  assert.deepEqual([json.server.kind, json.server.model], ["tessera", "nvlm-d-tiny"]);
  assert.equal((await readFile(at("grpc.json"), "utf8")).includes(key), false);
  const { report, requests = [] } = json.points[0] ?? assert.fail("no point");
  assert.deepEqual([report.inFlightMost, report.ttftMs?.count], [3, 16]);
  const total = requests.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  assert.deepEqual([requests.length, report.outputTokens], [16, total]);
  for (const request of requests) {
    assert.equal(request.outputTokens, request.wantedOutputTokens);
    assert.equal(request.gapsMs?.length, request.outputTokens - 1);
    assert.ok(request.inputTokens > 20, `${request.inputTokens} input tokens`);
  }
  assert.equal(report.itlMs?.count, total - 16);
  const shown = requests.filter(({ pictureCount }) => pictureCount > 0).length;
  const shared = requests.filter(({ prefix }) => prefix !== undefined).length;
  assert.ok(shown > 0 && shown < 16 && shared > 0 && shared < 16, `${shown}, ${shared}`);
  assert.match(await readFile(at("grpc.svg"), "utf8"), /^<svg .*TTFT, first token.*<\/svg>\n$/s);
});

test("a sweep of rates: a point each, a table, a picture of throughput and latency", async () => {
  const served = await serve(1);
  after(served.stop);
  const sweep = ["--sweep", "rates", "20,200", "--num-prompts", "8", "--goodput", "ttft:600000"];
  const outputs = ["--json", at("sweep.json"), "--plot", at("sweep.png")];
  const args = ["--server", served.cluster.address, ...SMALL, ...sweep, ...outputs];
  const { code, stdout, stderr } = await bench(args);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^rate \(req\/s\) .*\n +20 .*\n +200 .*\nlatencies in milliseconds\n$/);
  const { points } = await jsonOf("sweep.json");
  assert.deepEqual(
    points.map(({ value, report }) => [value, report.completed, report.goodput?.count]),
    [
      [20, 8, 8],
      [200, 8, 8],
    ],
  );
  assert.equal(points[0]?.requests, undefined);
  const { format, width } = await sharp(await readFile(at("sweep.png"))).metadata();
  assert.deepEqual([format, width], ["png", 1920]);
});

test("a full cluster: what it refuses is counted once, not asked again, with the time to come again", async () => {
  const served = await serveInProcess(1, { maxRequests: 1 });
  after(() => served.close());
  const load = ["--request-rate", "inf", "--num-prompts", "8", "--output-len", "512"];
  const args = ["--server", served.coordinator.address, ...load, "--json", at("full.json")];
  const { code, stdout, stderr } = await bench([...args, "--warmup", "1", "--input-len", "48"]);
  assert.equal(code, 0, stderr);
  const report = await reportOf("full.json");
  assert.equal(report.completed + report.refused, 8);
  assert.ok(report.completed >= 1 && report.refused >= 1, stdout);
  assert.deepEqual(
    report.errors.map(({ code: name, count }) => [name, count]),
    [["grpc_OVERLOADED", report.refused]],
  );
  assert.deepEqual(report.retryAfterMs?.count, report.refused);
  assert.match(stdout, /^ {2}of these refused for want of room: +\d+$/m);
});

test("a cluster with keys and TLS, by gRPC and by HTTP: the same load, the same tokens", async () => {
  const tls = await certificates();
  const [key, keys, ca] = ["sesame-of-acme", at("keys.yaml"), at("ca.pem")];
  const sha256 = createHash("sha256").update(key).digest("hex");
  await writeFile(keys, `keys:\n  - { sha256: "${sha256}", tenant: acme }\n`);
  await writeFile(ca, tls.ca);
  const security = { keys, tlsCert: tls.server.cert, tlsKey: tls.server.key, tlsCa: tls.server.ca };
  const served = await serve(1, { http: "127.0.0.1:0", security });
  after(served.stop);
  const targets = {
    grpc: ["--server", served.cluster.address],
    http: ["--base-url", `https://${served.cluster.http ?? assert.fail("no HTTP")}/v1`],
  };
  const load = [...SMALL, "--concurrency", "2", "--num-prompts", "6", "--tls-ca", ca, "--details"];
  const seen: unknown[] = [];
  for (const [name, target] of Object.entries(targets)) {
    const args = [...target, ...load, "--json", at(`${name}-tls.json`)];
    const { code, stderr } = await bench(args, { TESSERA_API_KEY: key });
    assert.equal(code, 0, stderr);
    const { server, points } = await jsonOf(`${name}-tls.json`);
    assert.equal(server.kind, "tessera");
    const requests = points[0]?.requests ?? [];
    seen.push(requests.map(({ inputTokens, outputTokens }) => [inputTokens, outputTokens]));
    const wrong = await bench(args, { TESSERA_API_KEY: "guess" });
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /no answer to start with: .*the key is not known/);
  }
  assert.deepEqual(seen[0], seen[1]);
  assert.equal((seen[0] as unknown[]).length, 6);
});

const EVENT = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n';
const USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n';

function answerWhole(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.end(`${EVENT.repeat(4)}${USAGE}data: [DONE]\n\n`);
}

interface Other {
  url: string;
  /** Streams asked for, and the most of them at once. */
  asked: number;
  most: number;
  /** Of each stream. */
  texts: unknown[];
  keys: unknown[];
}

interface Body {
  stream?: boolean;
  messages?: { content: unknown }[];
}

/** `answer` gets each stream that is asked for, counted from 0. */
async function serveOther(answer: (response: ServerResponse, n: number) => void): Promise<Other> {
  const other: Other = { url: "", asked: 0, most: 0, texts: [], keys: [] };
  let now = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (request.url === "/v1/models") return response.end('{"data":[{"id":"other"}]}');
      const { stream, messages } = JSON.parse(Buffer.concat(chunks).toString()) as Body;
      if (stream !== true) return response.end('{"choices":[],"usage":{"prompt_tokens":9}}');
      other.keys.push(request.headers.authorization);
      other.texts.push(messages?.[0]?.content);
      other.most = Math.max(other.most, ++now);
      response.on("close", () => now--);
      answer(response, other.asked++);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  other.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  return other;
}

test("another server by HTTP: answers, 429s with Retry-After and broken connections, each counted", async () => {
  const other = await serveOther((response, n) => {
    if (n % 4 === 1) response.writeHead(429, { "retry-after": "2" }).end('{"error":"full"}');
    else if (n % 4 === 3) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(EVENT, () => response.destroy());
    } else answerWhole(response);
  });
  const load = ["--concurrency", "1", "--num-prompts", "20", "--warmup", "0", "--output-len", "4"];
  const { code, stdout, stderr } = await bench(
    ["--base-url", other.url, ...load, "--json", at("http.json")],
    { OPENAI_API_KEY: "other-sesame" },
  );
  assert.equal(code, 0, stderr);
  assert.deepEqual(new Set(other.keys), new Set(["Bearer other-sesame"]));
  assert.equal((await readFile(at("http.json"), "utf8")).includes("other-sesame"), false);
  const report = await reportOf("http.json");
  const { completed, failed, refused, outputTokens, retryAfterMs } = report;
  assert.deepEqual([completed, failed, refused, outputTokens], [10, 10, 5, 40]);
  assert.deepEqual([retryAfterMs?.count, retryAfterMs?.mean], [5, 2000]);
  assert.deepEqual(report.errors.map(({ count }) => count).sort(), [5, 5]);
  assert.equal(report.errors.filter(({ code: name }) => name === "http_429").length, 1);
  assert.match(stdout, /^http_429: +5\n {2}full$/m);
  assert.equal(other.asked, 20);
});

test("an open loop does not wait for answers: they come only when all requests are there", async () => {
  const waiting: ServerResponse[] = [];
  const other = await serveOther((response) => {
    waiting.push(response);
    if (waiting.length === 25) waiting.forEach(answerWhole);
  });
  const load = ["--request-rate", "200", "--num-prompts", "25", "--warmup", "0"];
  const args = ["--base-url", other.url, ...load, "--output-len", "4", "--json", at("open.json")];
  const { code, stdout, stderr } = await bench(args);
  assert.equal(code, 0, stderr);
  const { completed, inFlightMost } = await reportOf("open.json");
  assert.deepEqual([completed, inFlightMost, other.most], [25, 25, 25]);
  assert.match(stdout, /^-+Starts behind schedule-+$/m);
});

test("a data set is sent line by line, again from the first", async () => {
  const other = await serveOther(answerWhole);
  const file = at("prompts.jsonl");
  await writeFile(file, '{"prompt":"one","output_len":4}\n{"prompt":"two","output_len":4}\n');
  const load = ["--concurrency", "1", "--num-prompts", "5", "--warmup", "0"];
  const { code, stderr } = await bench(["--base-url", other.url, "--dataset", file, ...load]);
  assert.deepEqual([code, other.texts], [0, ["one", "two", "one", "two", "one"]], stderr);
});

test("Ctrl-C: the report so far, marked as partial, and exit code 130", async () => {
  const other = await serveOther((response, n) => {
    if (n < 5) answerWhole(response);
  });
  const load = ["--concurrency", "3", "--num-prompts", "100", "--warmup", "0"];
  const args = ["--base-url", other.url, ...load, "--json", at("cut.json"), "--output-len", "4"];
  const child = spawn(process.execPath, [root("cli/bin/tessera.js"), "bench", "serve", ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const deadline = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  const closed = once(child, "close");
  await eventually("8 requests", () => other.asked === 8);
  child.kill("SIGINT");
  const [code] = (await closed) as [number];
  clearTimeout(deadline);
  assert.equal(code, 130);
  assert.match(stdout, /Serving Benchmark Result, partial/);
  const { completed, interrupted, failed } = await reportOf("cut.json");
  assert.deepEqual([completed, interrupted, failed], [5, 3, 0]);
});

for (const [name, target] of [
  ["HTTP", ["--base-url", "http://127.0.0.1:1/v1"]],
  ["gRPC", ["--server", "127.0.0.1:1"]],
] as const)
  test(`nobody there by ${name}: told before the load, exit 1, no file left`, async () => {
    const outputs = ["--json", at("none.json"), "--plot", at("none.svg")];
    const { code, stdout, stderr } = await bench([...target, ...outputs]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^tessera: .*127\.0\.0\.1:1.*no answer to start with: .+\n$/);
    assert.deepEqual(
      (await readdir(folder)).filter((file) => file.startsWith("none")),
      [],
    );
  });

test("a server that answers nothing is told after the warm-up; a file that cannot be written before it", async () => {
  const other = await serveOther((response) => response.writeHead(500).end('{"error":"broken"}'));
  const load = ["--base-url", other.url, "--num-prompts", "5"];
  const { code, stderr } = await bench([...load, "--warmup", "2"]);
  assert.equal(code, 1);
  assert.match(stderr, /no request of the warm-up was answered; the first: http_500: broken\n$/);
  assert.equal(other.asked, 2);
  const unwritable = await bench([...load, "--json", at("no/such.json")]);
  assert.equal(unwritable.code, 1);
  assert.match(unwritable.stderr, /--json .*no\/such\.json: cannot be written: .*ENOENT/);
  assert.equal(other.asked, 2);
});

test("help: bench serve describes each option and its examples use no other", async () => {
  const { code, stdout } = await bench(["--help"]);
  assert.equal(code, 0);
  const [options = "", examples = ""] = stdout.split("Examples:");
  const known = [...options.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, flag]) => flag);
  assert.ok(known.length > 25, `${known.length} options`);
  for (const [, flag] of examples.matchAll(/ (--[a-z][a-z-]*)/g))
    assert.ok(known.includes(flag), flag);
  const wrong = await bench(["--server", "x", "--input-len", "0", "--sweep", "rate", "1"]);
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /--sweep rate 1.*\n.*--server x.*\n.*--input-len 0/);
});
