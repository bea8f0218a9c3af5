/** The official OpenAI client, unmodified: batches. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import OpenAI, { BadRequestError, NotFoundError, toFile } from "openai";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";
import { serveInProcess } from "../harness/in-process.js";

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), "tessera-batches-"));
  after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
const dataDir = folder();
const { openai, call, held } = await serveHttp({ dataDir });
const model = "nvlm-d-tiny";
const CHAT = "/v1/chat/completions";
const TEXT = "/v1/completions";
const window = "24h";

const chat = (text: string, more: object = {}) => ({
  model,
  messages: [{ role: "user" as const, content: text }],
  max_tokens: 6,
  ...more,
});
const line = (id: string, body: object, url = CHAT) =>
  JSON.stringify({ custom_id: id, method: "POST", url, body });
/** Takes seconds. */
const LONG = { max_tokens: 3000, min_tokens: 3000 };

async function upload(client: OpenAI, lines: string[]): Promise<string> {
  const file = await toFile(Buffer.from(lines.join("\n")), "in.jsonl");
  return (await client.files.create({ file, purpose: "batch" })).id;
}

async function start(client: OpenAI, lines: string[], endpoint: typeof CHAT | typeof TEXT = CHAT) {
  const input = await upload(client, lines);
  return client.batches.create({
    input_file_id: input,
    endpoint,
    completion_window: window,
    metadata: { team: "a" },
  });
}

async function until(client: OpenAI, id: string, status: string): Promise<OpenAI.Batch> {
  let batch = await client.batches.retrieve(id);
  await eventually(
    `the batch is ${status}`,
    async () => (batch = await client.batches.retrieve(id)).status === status,
    60_000,
  );
  return batch;
}

interface Result {
  id: string;
  custom_id: string;
  response: { status_code: number; request_id: string; body: OpenAI.ChatCompletion } | null;
  error: { code: string; message: string } | null;
}
async function results(client: OpenAI, id: string | null | undefined): Promise<Result[]> {
  assert.ok(typeof id === "string");
  const text = await (await client.files.content(id)).text();
  assert.ok(text.endsWith("\n"));
  return text
    .trimEnd()
    .split("\n")
    .map((one) => JSON.parse(one) as Result);
}

test("batches: each line's answer is that of a live request; a wrong one is in the error file", async () => {
  const bodies = Array.from({ length: 40 }, (_, i) =>
    chat(`Name ${i}?`, { temperature: 1, seed: i }),
  );
  const lines = bodies.map((body, i) => line(`id-${i}`, body));
  lines.push(line("wrong", chat("a", { temperature: -1 })), "", line("none", { model: "gpt-4o" }));
  const made = await start(openai, lines);
  assert.match(made.id, /^batch_[0-9a-f]{32}$/);
  assert.equal(made.endpoint, CHAT);
  assert.equal(made.completion_window, window);
  assert.equal((made.expires_at ?? 0) - made.created_at, 86_400);
  const batch = await until(openai, made.id, "completed");
  assert.deepEqual(batch.request_counts, { total: 42, completed: 40, failed: 2 });
  assert.deepEqual(batch.metadata, { team: "a" });
  assert.equal(batch.errors, null);
  const { created_at: created, in_progress_at: begun, finalizing_at: end } = batch;
  assert.ok(created <= (begun ?? 0) && (begun ?? 0) <= (end ?? 0));
  assert.ok((end ?? 0) <= (batch.completed_at ?? 0));
  const answered = await results(openai, batch.output_file_id);
  assert.deepEqual(
    new Set(answered.map((one) => one.custom_id)),
    new Set(bodies.map((_, i) => `id-${i}`)),
  );
  for (const { custom_id: id, response, error } of answered) {
    const live = await openai.chat.completions.create(bodies[Number(id.slice(3))] ?? chat(""));
    assert.equal(response?.status_code, 200);
    assert.deepEqual(response.body.choices, live.choices);
    assert.equal(response.body.usage?.completion_tokens, live.usage?.completion_tokens);
    assert.equal(error, null);
  }
  const failed = await results(openai, batch.error_file_id);
  const statuses = failed.map(({ custom_id: id, response }) => [id, response?.status_code]);
  assert.deepEqual(statuses.sort(), [
    ["none", 400],
    ["wrong", 400],
  ]);
  const wrong = failed.find((one) => one.custom_id === "wrong")?.response?.body;
  assert.match(JSON.stringify(wrong), /"message":"temperature: is -1.*"param":"temperature"/);
  const file = await openai.files.retrieve(batch.output_file_id ?? "");
  assert.equal(file.purpose, "batch_output");
  assert.equal(file.filename, `${batch.id}_output.jsonl`);
});

test("batches: completions are answered too, and the file may go meanwhile", async () => {
  const body = { model, prompt: ["The name is", "A"], max_tokens: 4, n: 2 };
  const made = await start(openai, [line("a", body, TEXT)], TEXT);
  await openai.files.delete(made.input_file_id);
  const batch = await until(openai, made.id, "completed");
  assert.equal(batch.error_file_id, null);
  const [answer] = await results(openai, batch.output_file_id);
  const live = await openai.completions.create(body);
  assert.deepEqual(answer?.response?.body.choices, live.choices);
});

const ok = line("a", chat("a"));
const faults: [name: string, lines: string[], code: string, at: number | null][] = [
  ["no lines", ["", " "], "empty_file", null],
  ["no JSON", [ok, "{"], "invalid_json_line", 2],
  ["a list", ["[]"], "invalid_json_line", 1],
  ["a text", ['"a"'], "invalid_json_line", 1],
  ["a prototype", ['{"__proto__": {"custom_id": "a"}}'], "invalid_json_line", 1],
  ["depth", [`${"[".repeat(1000)}${"]".repeat(1000)}`], "invalid_json_line", 1],
  ["no id", [line("", chat("a"))], "invalid_custom_id", 1],
  ["an id that is a number", [ok, "", ok.replace('"a"', "7")], "invalid_custom_id", 3],
  ["a long id", [line("x".repeat(513), chat("a"))], "invalid_custom_id", 1],
  ["an id twice", [ok, line("b", chat("a")), ok], "duplicate_custom_id", 3],
  ["another method", [ok.replace("POST", "GET")], "invalid_method", 1],
  ["another endpoint", [line("a", chat("a"), TEXT)], "mismatched_endpoint", 1],
  ["no body", [JSON.stringify({ custom_id: "a", method: "POST", url: CHAT })], "invalid_body", 1],
  ["a list as body", [line("a", [])], "invalid_body", 1],
];
for (const [name, lines, code, at] of faults)
  test(`batches: a file with ${name} fails as ${code}, and nothing is computed`, async () => {
    const made = await start(openai, lines);
    const batch = await until(openai, made.id, "failed");
    const [fault] = batch.errors?.data ?? [];
    assert.equal(fault?.code, code);
    assert.equal(fault.line, at);
    assert.equal(batch.output_file_id, null);
    assert.equal(batch.request_counts?.completed, 0);
    assert.ok((batch.failed_at ?? 0) >= batch.created_at);
  });

test("batches: at most 100 faults are told", async () => {
  const made = await start(openai, Array<string>(300).fill("{"));
  assert.equal((await until(openai, made.id, "failed")).errors?.data?.length, 100);
});

const LINE_ROWS: [object, param: string][] = [
  [{ stream: true }, "stream"],
  [{ resume: true }, "resume"],
  [{ request_id: "x" }, "request_id"],
  [{ priority: "low" }, "priority"],
];
test("batches: what a line may not ask for is told by name", async () => {
  const lines = LINE_ROWS.map(([more], i) => line(String(i), chat("a", more)));
  const made = await start(openai, lines);
  const batch = await until(openai, made.id, "completed");
  assert.equal(batch.output_file_id, null);
  for (const { custom_id: id, response } of await results(openai, batch.error_file_id)) {
    assert.equal(response?.status_code, 400);
    const { error } = response.body as unknown as { error: { param: string } };
    assert.equal(error.param, LINE_ROWS[Number(id)]?.[1]);
  }
});

const input = await upload(openai, [ok]);
const good = { input_file_id: input, endpoint: CHAT, completion_window: window };
const rows: [change: object, param: string, status?: number][] = [
  [{ input_file_id: undefined }, "input_file_id"],
  [{ input_file_id: 7 }, "input_file_id"],
  [{ input_file_id: "file-none" }, "input_file_id", 404],
  [{ input_file_id: "../../x" }, "input_file_id", 404],
  [{ endpoint: undefined }, "endpoint"],
  [{ endpoint: "/v1/embeddings" }, "endpoint"],
  [{ endpoint: "/v1/responses" }, "endpoint"],
  [{ completion_window: undefined }, "completion_window"],
  [{ completion_window: "1h" }, "completion_window"],
  [{ metadata: "a" }, "metadata"],
  [{ metadata: { a: 1 } }, "metadata"],
  [{ metadata: { a: "x".repeat(513) } }, "metadata"],
  [{ metadata: { ["x".repeat(65)]: "a" } }, "metadata"],
  [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, ""])) }, "metadata"],
  [{ output_expires_after: { anchor: "created_at", seconds: 1 } }, "output_expires_after"],
];
for (const [i, [change, param, status = 400]] of rows.entries())
  test(`batches: bad body ${i} is refused for ${param}`, async () => {
    const answer = await call("POST", "/v1/batches", { body: { ...good, ...change } });
    assert.equal(answer.status, status, answer.text);
    assert.equal((answer.json as { error: { param: string } }).error.param, param);
  });

test("batches: an output file is no input", async () => {
  const made = await start(openai, [ok]);
  const { output_file_id: output } = await until(openai, made.id, "completed");
  const body = { ...good, input_file_id: output };
  const answer = await call("POST", "/v1/batches", { body });
  assert.match(answer.text, /purpose batch_output, must be batch/);
});

test("batches: a list has pages and goes through all", async () => {
  const all: string[] = [];
  for await (const batch of openai.batches.list({ limit: 3 })) all.push(batch.id);
  assert.ok(all.length > 5);
  assert.equal(new Set(all).size, all.length);
  const answer = await call("GET", "/v1/batches?limit=101");
  assert.equal(answer.status, 400);
});

test("batches: a cancelled one keeps its answers, tells the lines left, and holds nothing", async () => {
  const lines = Array.from({ length: 20 }, (_, i) => line(`long-${i}`, chat("a", LONG)));
  const made = await start(openai, [ok, ...lines]);
  await eventually("one is answered and others run", async () => {
    const { request_counts: counts } = await openai.batches.retrieve(made.id);
    return counts?.completed === 1 && (await held()) > 0;
  });
  const told = await openai.batches.cancel(made.id);
  assert.match(told.status, /^cancell/);
  await eventually("nothing is held", async () => (await held()) === 0, 2000);
  const batch = await until(openai, made.id, "cancelled");
  const answered = await results(openai, batch.output_file_id);
  assert.deepEqual(
    answered.map((one) => one.custom_id),
    ["a"],
  );
  const left = await results(openai, batch.error_file_id);
  assert.deepEqual(
    left.map((one) => one.custom_id),
    lines.map((_, i) => `long-${i}`),
  );
  for (const { response, error } of left) {
    assert.equal(response, null);
    assert.equal(error?.code, "batch_cancelled");
  }
  assert.equal((await openai.batches.cancel(made.id)).status, "cancelled");
});

test("batches: one that has ended cannot be cancelled, one that is not there is not found", async () => {
  const made = await start(openai, [ok]);
  await until(openai, made.id, "completed");
  await assert.rejects(openai.batches.cancel(made.id), BadRequestError);
  await assert.rejects(openai.batches.cancel("batch_none"), NotFoundError);
  await assert.rejects(openai.batches.retrieve("..%2f.."), NotFoundError);
});

/** A server of its own on a folder, as often as is asked for. */
async function serveOn(dir: string) {
  const served = await serveInProcess(1, {
    dataDir: dir,
    httpListen: "127.0.0.1:0",
    maxRequests: 8,
  });
  const baseURL = `http://${served.coordinator.httpAddress}/v1`;
  return { served, client: new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 }) };
}
/** The batch's own file on disk. */
function fileOf(dir: string, id: string, name: string): string {
  const [tenant = ""] = readdirSync(join(dir, "tenants"));
  return join(dir, "tenants", tenant, "batches", id, name);
}

test("batches: a restart goes on with what is left, and computes no answer again", async () => {
  const dir = folder();
  const first = await serveOn(dir);
  const slow = { max_tokens: 200, min_tokens: 200 };
  const lines = Array.from({ length: 24 }, (_, i) => line(`id-${i}`, chat(`${i}`, slow)));
  const made = await start(first.client, lines);
  await eventually("some are answered", async () => {
    const { request_counts: counts } = await first.client.batches.retrieve(made.id);
    return (counts?.completed ?? 0) >= 4;
  });
  await first.served.close();
  const before = readFileSync(fileOf(dir, made.id, "output.jsonl"), "utf8");
  const count = before.trimEnd().split("\n").length;
  assert.ok(count >= 4 && count < 24, `${count} answers`);
  // As a crash in the middle of a line leaves it.
  writeFileSync(fileOf(dir, made.id, "output.jsonl"), `${before}{"id": "batch_req`);

  const second = await serveOn(dir);
  const batch = await until(second.client, made.id, "completed");
  assert.deepEqual(batch.request_counts, { total: 24, completed: 24, failed: 0 });
  const { output_file_id: output } = batch;
  const text = await (await second.client.files.content(output ?? "")).text();
  assert.ok(text.startsWith(before));
  const ids = (await results(second.client, output)).map((one) => one.custom_id);
  assert.equal(ids.length, 24);
  assert.equal(new Set(ids).size, 24);
  await second.served.close();

  const third = await serveOn(dir);
  assert.deepEqual(await third.client.batches.retrieve(made.id), batch);
  assert.equal(await (await third.client.files.content(output ?? "")).text(), text);
  await third.served.close();
});

test("batches: one whose time is up expires, with a word for every line left", async () => {
  const dir = folder();
  const first = await serveOn(dir);
  const made = await start(first.client, [ok, line("long", chat("a", LONG))]);
  await eventually("one is answered", async () => {
    const { request_counts: counts } = await first.client.batches.retrieve(made.id);
    return counts?.completed === 1;
  });
  await first.served.close();
  const state = fileOf(dir, made.id, "state.json");
  const record = JSON.parse(readFileSync(state, "utf8")) as object;
  writeFileSync(state, JSON.stringify({ ...record, expiresMs: Date.now() - 1 }));
  const second = await serveOn(dir);
  const batch = await until(second.client, made.id, "expired");
  assert.ok((batch.expired_at ?? 0) >= batch.created_at);
  assert.equal((await results(second.client, batch.output_file_id)).length, 1);
  const [left] = await results(second.client, batch.error_file_id);
  assert.equal(left?.custom_id, "long");
  assert.equal(left.error?.code, "batch_expired");
  await second.served.close();
});

test("batches: a folder belongs to one server at a time, and a damaged one stops the start", async () => {
  const dir = folder();
  const first = await serveOn(dir);
  const made = await start(first.client, [ok]);
  await until(first.client, made.id, "completed");
  await assert.rejects(serveOn(dir), {
    code: "CONFIGURATION",
    message: /^data-dir: .* is used by another coordinator$/,
  });
  await first.served.close();
  writeFileSync(fileOf(dir, made.id, "state.json"), "{");
  await assert.rejects(serveOn(dir), {
    code: "CONFIGURATION",
    message: /^data-dir: .*state\.json is no JSON/,
  });
});

test("batches: a busy server makes them wait, not fail", async () => {
  const dir = folder();
  const { openai: own, held: count } = await serveHttp({ dataDir: dir, maxRequests: 2 });
  const body = { ...chat("a", LONG), stream: true } as const;
  const streams = await Promise.all([1, 2].map(() => own.chat.completions.create(body)));
  const made = await start(own, [ok, line("b", chat("b"))]);
  await until(own, made.id, "in_progress");
  for (const stream of streams) stream.controller.abort();
  const batch = await until(own, made.id, "completed");
  assert.deepEqual(batch.request_counts, { total: 2, completed: 2, failed: 0 });
  await eventually("nothing is held", async () => (await count()) === 0);
});
