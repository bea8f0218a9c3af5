/** The HTTP front of `tessera up` and of a cluster of child processes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import OpenAI, { toFile } from "openai";
import { attributesOf, collect } from "../harness/collector.js";
import { tessera } from "../harness/command.js";
import { serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";

const model = root("models/nvlm-d-tiny");
const DEADLINE_MS = 60_000;
const ask = { model: "", messages: [{ role: "user" as const, content: "Hello" }], max_tokens: 3 };

/** `tessera up` as a process of its own, until it is told to end. */
async function up(...flags: string[]) {
  const args = ["up", "--model", model, "--threads", "1", "--port", "0", "--http", "127.0.0.1:0"];
  const child = spawn(process.execPath, [root("cli/bin/tessera.js"), ...args, ...flags], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
  const closed = once(child, "close");
  let url = "";
  for await (const line of createInterface({ input: child.stdout })) {
    url = /^HTTP on (http:\/\/127\.0\.0\.1:\d+)$/.exec(line)?.[1] ?? "";
    if (url !== "") break;
  }
  assert.notEqual(url, "");
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const end = async () => {
    child.kill("SIGTERM");
    assert.deepEqual(await closed, [0, null]);
    clearTimeout(timer);
  };
  return { url, openai, end };
}

test("up: says where its HTTP front is, which answers and ends with it", async () => {
  const { url, openai, end } = await up();
  const { object } = await openai.chat.completions.create(ask);
  assert.equal(object, "chat.completion");
  await end();
  await assert.rejects(fetch(`${url}/health`), /fetch failed/);
});

test("up --data-dir: files and batches are there, and there again after a restart", async () => {
  const dir = mkdtempSync(join(tmpdir(), "tessera-command-"));
  after(() => rmSync(dir, { recursive: true, force: true }));
  const first = await up("--data-dir", dir);
  const body = { ...ask, model: "nvlm-d-tiny" };
  const endpoint = "/v1/chat/completions";
  const line = JSON.stringify({ custom_id: "a", method: "POST", url: endpoint, body });
  const { id } = await first.openai.files.create({
    file: await toFile(Buffer.from(line), "in.jsonl"),
    purpose: "batch",
  });
  const asked = { input_file_id: id, endpoint, completion_window: "24h" } as const;
  let batch = await first.openai.batches.create(asked);
  await eventually("the batch is completed", async () => {
    batch = await first.openai.batches.retrieve(batch.id);
    return batch.status === "completed";
  });
  await first.end();

  const second = await up("--data-dir", dir);
  assert.deepEqual(await second.openai.batches.retrieve(batch.id), batch);
  assert.equal(await (await second.openai.files.content(id)).text(), line);
  const output = await second.openai.files.content(batch.output_file_id ?? "");
  assert.equal((JSON.parse(await output.text()) as { custom_id: string }).custom_id, "a");
  await second.end();
});

test("up: the default address of HTTP being taken is said, with what to do, before anything is loaded", async () => {
  const other = createServer();
  // Whoever holds it, it is taken.
  await new Promise((settled) =>
    other.once("error", settled).listen(8000, "127.0.0.1", () => settled(undefined)),
  );
  try {
    const { code, stdout, stderr } = await tessera(["up", "--model", model, "--port", "0"]);
    assert.deepEqual([code, stdout], [1, ""]);
    const what = "127.0.0.1:8000, the default of --http, is taken by another process";
    assert.ok(stderr.includes(`${what}: give another --http host:port, or --no-http`), stderr);
  } finally {
    other.close();
  }
});

const refused: [string[], RegExp][] = [
  [["--http", "8000"], /--http 8000: is no host:port/],
  [
    ["--http", "127.0.0.1:0", "--cors-origin", "example.org"],
    /cors-origin: "example\.org", must be/,
  ],
  [["--http", "127.0.0.1:0", "--http-body-limit", "0"], /http-body-limit: 0, must be/],
  [["--no-http", "--data-dir", "x"], /data-dir: needs http/],
  [["--http", "0.0.0.0:0"], /http: 0\.0\.0\.0 is beyond loopback and needs keys and tls-cert/],
];
for (const [flags, message] of refused)
  test(`up ${flags.join(" ")}: is refused with the reason`, async () => {
    const { code, stderr } = await tessera(["up", "--model", model, "--port", "0", ...flags]);
    assert.equal(code, 1);
    assert.match(stderr, message);
  });

test("traces: a request over HTTP goes on with the caller's trace", async () => {
  const collector = await collect();
  after(() => collector.close());
  const { cluster, stop } = await serve(1, {
    http: "127.0.0.1:0",
    flags: { otlpEndpoint: collector.endpoint },
  });
  try {
    const [trace, parent] = ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"];
    const openai = new OpenAI({ baseURL: `http://${cluster.http}/v1`, apiKey: "none" });
    const asked = { model: "", input: "Hello", max_output_tokens: 3 };
    for (const stream of [false, true]) {
      const of = (route: string) => ({
        headers: { traceparent: `00-${trace}-${parent}-01`, "x-request-id": `${route}-${stream}` },
      });
      const { chat, responses } = openai;
      const told = [
        await chat.completions.create({ ...ask, stream }, of("chat")).asResponse(),
        await responses.create({ ...asked, stream }, of("response")).asResponse(),
      ];
      for (const response of told) await response.text();
    }
    const ids = ["chat-false", "chat-true", "response-false", "response-true"];
    const spans = () =>
      collector.spans.filter((span) =>
        ids.includes(String(attributesOf(span)["gen_ai.request.id"])),
      );
    await eventually("a span of each", () => spans().length === ids.length);
    for (const span of spans())
      assert.deepEqual([span.traceId, span.parentSpanId], [trace, parent]);
  } finally {
    await stop();
  }
});
