/** /openapi.json is the server's: the same paths and methods, and real answers are as it says. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { toFile } from "openai";
import { serveHttp, type Answer, type CallOptions } from "../harness/http-front.js";

interface Operation {
  security?: unknown[];
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object> };
}

const dataDir = mkdtempSync(join(tmpdir(), "tessera-openapi-"));
const { call, openai } = await serveHttp({ dataDir });
after(() => rmSync(dataDir, { recursive: true, force: true }));
const line = { custom_id: "a", method: "POST", url: "/v1/completions", body: { prompt: "a" } };
const file = await openai.files.create({
  file: await toFile(Buffer.from(JSON.stringify(line)), "in.jsonl"),
  purpose: "batch",
});
const batch = {
  input_file_id: file.id,
  endpoint: "/v1/completions",
  completion_window: "24h",
} as const;
const { id: batchId } = await openai.batches.create(batch);
const messages = [{ role: "user", content: "What is the name?" }];
const document = (await call("GET", "/openapi.json")).json as Document;

const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, strictRequired: false });
ajv.addVocabulary(["openapi", "info", "paths", "components", "security"]);
ajv.addSchema(document, "openapi");

/** `pointer` is of the document. */
function check(pointer: string, value: unknown): void {
  const validate = ajv.getSchema(`openapi#${pointer}`);
  assert.ok(validate !== undefined, pointer);
  assert.ok(validate(value), JSON.stringify([validate.errors, value]).slice(0, 2000));
}

const escape = (part: string) =>
  encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"));

function pointerOf(path: string, method: string, status: string, type: string): string {
  return `/paths/${escape(path)}/${method}/responses/${status}/content/${escape(type)}/schema`;
}

test("openapi: version 3.1, and every reference leads somewhere", () => {
  assert.equal(document.openapi, "3.1.0");
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#([^"]+)"/g)];
  assert.ok(references.length > 0);
  for (const [, pointer = ""] of references) assert.ok(ajv.getSchema(`openapi#${pointer}`));
});

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];

for (const [path, operations] of Object.entries(document.paths))
  test(`openapi: the server takes the methods of ${path} and no other`, async () => {
    const url = path.replaceAll(/\{\w+\}/g, "nobody");
    for (const method of METHODS) {
      const { status, text } = await call(method, url);
      const known = method.toLowerCase() in operations;
      assert.equal(status === 405, !known, `${method} ${path}: ${status} ${text}`);
      assert.doesNotMatch(text, /"unknown_url"/);
    }
  });

test("openapi: what it does not name is not there", async () => {
  for (const path of ["/", "/v1", "/v1/nothing", "/v1/models/a/b", "/V1/models", "/metrics"]) {
    const answer = await call("GET", path);
    assert.equal(answer.status, 404, path);
    check(pointerOf("/v1/models", "get", "4XX", "application/json"), answer.json);
  }
});

const chat = { messages, max_tokens: 6, temperature: 1, seed: 1, ignore_eos: true };
const text = { prompt: "The name is", max_tokens: 6, temperature: 1, seed: 1, ignore_eos: true };
const everything = { n: 2, return_token_ids: true };
const CHAT = "/v1/chat/completions";
const TEXT = "/v1/completions";
/** Method, path as described, status; the path as asked where it is another. */
const answers: [string, string, string, CallOptions, string?][] = [
  ["GET", "/health", "200", {}],
  ["GET", "/version", "200", {}],
  ["GET", "/openapi.json", "200", {}],
  ["GET", "/v1/models", "200", {}],
  ["GET", "/v1/models/{id}", "200", {}, "/v1/models/nvlm-d-tiny"],
  ["GET", "/v1/models/{id}", "4XX", {}, "/v1/models/none"],
  ["GET", "/v1/streams/{id}", "4XX", {}, "/v1/streams/none"],
  ["DELETE", "/v1/streams/{id}", "4XX", {}, "/v1/streams/none"],
  ["POST", "/tokenize", "200", { body: { messages, return_token_strs: true } }],
  ["POST", "/tokenize", "200", { body: { prompt: "a" } }],
  ["POST", "/detokenize", "200", { body: { tokens: [65] } }],
  ["POST", "/v1/responses", "200", { body: { input: "a", max_output_tokens: 4 } }],
  ["POST", "/v1/responses", "4XX", { body: {} }],
  ["GET", "/v1/responses/{id}", "4XX", {}, "/v1/responses/resp_a"],
  ["DELETE", "/v1/responses/{id}", "4XX", {}, "/v1/responses/resp_a"],
  ["GET", "/v1/files", "200", {}],
  ["GET", "/v1/files/{id}", "200", {}, `/v1/files/${file.id}`],
  ["GET", "/v1/files/{id}", "4XX", {}, "/v1/files/none"],
  ["GET", "/v1/files/{id}/content", "4XX", {}, "/v1/files/none/content"],
  ["POST", "/v1/files", "4XX", { body: {} }],
  ["POST", "/v1/batches", "200", { body: batch }],
  ["POST", "/v1/batches", "4XX", { body: {} }],
  ["GET", "/v1/batches", "200", {}],
  ["GET", "/v1/batches/{id}", "200", {}, `/v1/batches/${batchId}`],
  ["POST", "/v1/batches/{id}/cancel", "4XX", {}, "/v1/batches/none/cancel"],
  ["DELETE", "/v1/files/{id}", "200", {}, `/v1/files/${file.id}`],
  ["POST", CHAT, "200", { body: chat }],
  ["POST", CHAT, "200", { body: { ...chat, ...everything, logprobs: true, top_logprobs: 2 } }],
  ["POST", CHAT, "4XX", { body: {} }],
  ["POST", TEXT, "200", { body: text }],
  ["POST", TEXT, "200", { body: { ...text, ...everything, logprobs: 2 } }],
  ["POST", TEXT, "4XX", { body: { prompt: "" } }],
];
for (const [i, [method, path, status, options, url = path]] of answers.entries())
  test(`openapi: answer ${i}, of ${method} ${url}, ${status}, is as described`, async () => {
    const answer: Answer = await call(method, url, options);
    assert.equal(String(answer.status)[0], status[0], answer.text);
    check(pointerOf(path, method.toLowerCase(), status, "application/json"), answer.json);
  });

const streams: [string, string, object][] = [
  ["a conversation", CHAT, chat],
  [
    "choices, logprobs, ids and usage",
    CHAT,
    { ...chat, ...everything, logprobs: true, stream_options: { include_usage: true } },
  ],
  [
    "a completion",
    TEXT,
    {
      ...text,
      ...everything,
      logprobs: 1,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    },
  ],
];
for (const [name, path, body] of streams)
  test(`openapi: every chunk of ${name} is as described, resumed too`, async () => {
    const id = `openapi-${name.replaceAll(/\W/g, "-")}`;
    const asked = { ...body, stream: true, resume: true, request_id: id };
    const whole = await call("POST", path, { body: asked });
    const place = /^id: (.+)$/m.exec(whole.text)?.[1] ?? "";
    const rest = await call("GET", `/v1/streams/${id}`, { headers: { "last-event-id": place } });
    const from: [Answer, string][] = [
      [whole, pointerOf(path, "post", "200", "text/event-stream")],
      [rest, pointerOf("/v1/streams/{id}", "get", "200", "text/event-stream")],
    ];
    for (const [{ text: said }, pointer] of from) {
      const chunks = [...said.matchAll(/^data: (\{.*)$/gm)].map(([, json = ""]) => json);
      assert.ok(chunks.length > 2);
      for (const chunk of chunks) check(pointer, JSON.parse(chunk));
    }
  });

test("openapi: every event of a response is as described", async () => {
  const body = { input: "a", max_output_tokens: 4, stream: true, top_logprobs: 1 };
  const { text: said } = await call("POST", "/v1/responses", { body });
  const events = [...said.matchAll(/^data: (\{.*)$/gm)].map(([, json = ""]) => json);
  assert.ok(events.length > 6);
  const pointer = pointerOf("/v1/responses", "post", "200", "text/event-stream");
  for (const event of events) check(pointer, JSON.parse(event));
});

test("openapi: only what asks for no key says so", () => {
  const open = Object.entries(document.paths).filter(([, operations]) =>
    Object.values(operations).some(({ security }) => security?.length === 0),
  );
  assert.deepEqual(open.map(([path]) => path).sort(), ["/health", "/openapi.json", "/version"]);
});
