/** Bad input over HTTP: each refused in OpenAI's shape with its status, field and reason; a neighbour is not disturbed. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { serveHttp, type CallOptions } from "../harness/http-front.js";
import { root } from "../harness/paths.js";

const BODY_LIMIT = 1 << 20;
const { call, held } = await serveHttp({ httpBodyLimit: BODY_LIMIT });
const messages = [{ role: "user", content: "Hello" }];
const picture = await readFile(root("models/documents/document-01.png"));

interface Row {
  name: string;
  path: string;
  options: CallOptions;
  status: number;
  code: string;
  param: string | null;
  message: RegExp;
}

const chatRow = (
  name: string,
  more: object,
  param: string,
  message: RegExp,
  code = "invalid_value",
): Row => ({
  name,
  path: "/v1/chat/completions",
  options: { body: { messages, ...more } },
  status: code === "model_not_found" ? 404 : 400,
  code,
  param,
  message,
});

const textRow = (
  name: string,
  body: object,
  param: string,
  message: RegExp,
  code = "invalid_value",
): Row => ({
  ...chatRow(name, {}, param, message, code),
  path: "/v1/completions",
  options: { body },
});

const rawRow = (name: string, options: CallOptions, param: string, message: RegExp): Row => ({
  ...chatRow(name, {}, param, message),
  options,
});

const image = (url: string, more = {}) => [
  { role: "user", content: [{ type: "image_url", image_url: { url, ...more } }] },
];
const dataUrl = (bytes: Uint8Array, type = "image/png") =>
  `data:${type};base64,${Buffer.from(bytes).toString("base64")}`;
const URL_FIELD = "messages[0].content[0].image_url.url";
const NOT_SERVED = "unsupported_parameter";
const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;

const raws: Row[] = [
  rawRow("no body", { text: "" }, "body", /is empty/),
  rawRow("half a JSON", { text: '{"messages": [' }, "body", /is no JSON/),
  rawRow("a text", { text: "hello" }, "body", /is no JSON/),
  rawRow("NaN", { text: '{"temperature": NaN}' }, "body", /is no JSON/),
  rawRow("a list", { body: [] }, "body", /must be an object/),
  rawRow("null", { body: null }, "body", /must be an object/),
  rawRow("a number", { body: 7 }, "body", /must be an object/),
  rawRow("no UTF-8", { text: Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d) }, "body", /is no UTF-8/),
  rawRow("129 levels", { text: deep(129) }, "body", /nested deeper than 128/),
  rawRow("100,000 levels", { text: deep(100_000) }, "body", /nested deeper than 128/),
  rawRow("a prototype", { text: '{"__proto__": {"n": 1}}' }, "body", /forbidden prototype/),
  rawRow(
    "another content-type",
    { text: "{}", headers: { "content-type": "text/plain" } },
    "content-type",
    /must be application\/json/,
  ),
  rawRow(
    "a form",
    { text: "a=1", headers: { "content-type": "application/x-www-form-urlencoded" } },
    "content-type",
    /must be application\/json/,
  ),
  {
    ...rawRow("a byte too many", { text: "x".repeat(BODY_LIMIT + 1) }, "body", /more than 1048576/),
    status: 413,
    code: "request_too_large",
  },
];

const chats: Row[] = [
  chatRow("no messages", { messages: undefined }, "messages", /must be a list|is undefined/),
  chatRow("empty messages", { messages: [] }, "messages", /are empty/),
  chatRow("a message that is none", { messages: ["hi"] }, "messages[0]", /must be an object/),
  chatRow("an unknown role", { messages: [{ role: "x", content: "" }] }, "messages[0].role", /"x"/),
  chatRow("another model", { model: "gpt-4o" }, "model", /served is/, "model_not_found"),
  chatRow("a model that is a number", { model: 7 }, "model", /is 7, must be a text/),
  chatRow("a misspelt field", { tempertaure: 1 }, "tempertaure", /is not known/, NOT_SERVED),
  chatRow("best_of", { best_of: 2 }, "best_of", /is not served/, NOT_SERVED),
  chatRow("functions", { functions: [] }, "functions", /use tools/, NOT_SERVED),
  chatRow("stream as a text", { stream: "yes" }, "stream", /is "yes", must be true or false/),
  chatRow("stream_options alone", { stream_options: {} }, "stream_options", /without stream/),
  chatRow(
    "an unknown stream option",
    { stream: true, stream_options: { x: true } },
    "stream_options.x",
    /is not known/,
  ),
  chatRow("temperature as text", { temperature: "1" }, "temperature", /is "1", must be a number/),
  chatRow("temperature -1", { temperature: -1 }, "temperature", /is -1, must be 0 .*greedy/),
  chatRow("top_p 0", { top_p: 0 }, "top_p", /is 0, must be above 0/),
  chatRow("min_p 2", { min_p: 2 }, "min_p", /is 2, must be 0…1/),
  chatRow("presence_penalty 3", { presence_penalty: 3 }, "presence_penalty", /is 3/),
  chatRow("repetition_penalty 0", { repetition_penalty: 0 }, "repetition_penalty", /is 0/),
  chatRow("n 0", { n: 0 }, "n", /is 0, must be 1…16/),
  chatRow("n 17", { n: 17 }, "n", /is 17, must be 1…16/),
  chatRow("max_tokens 0", { max_tokens: 0 }, "max_tokens", /is 0, must be 1…/),
  chatRow(
    "max_tokens over the context",
    { max_tokens: 4090 },
    "max_tokens",
    /the context has 4096/,
    "context_length_exceeded",
  ),
  chatRow("min_tokens over max_tokens", { min_tokens: 9, max_tokens: 2 }, "min_tokens", /is 9/),
  chatRow("top_logprobs alone", { top_logprobs: 2 }, "top_logprobs", /needs logprobs: true/),
  chatRow("21 top_logprobs", { logprobs: true, top_logprobs: 21 }, "top_logprobs", /is 21/),
  chatRow("17 stop texts", { stop: Array(17).fill("x") }, "stop", /17 entries, limit 16/),
  chatRow("an empty stop text", { stop: ["a", ""] }, "stop[1]", /has 0 characters/),
  chatRow("a stop id beyond", { stop_token_ids: [9999] }, "stop_token_ids", /have 9999/),
  chatRow("a bias that is too large", { logit_bias: { 5: 101 } }, "logit_bias[5]", /is 101/),
  chatRow("an id of a request", { request_id: "a b" }, "request_id", /must be 1…64 of/),
  chatRow("a web picture", { messages: image("http://x/y.png") }, URL_FIELD, /never fetched/),
  chatRow("broken base64", { messages: image("data:image/png;base64,a*") }, URL_FIELD, /no base64/),
  chatRow(
    "a picture that is none",
    { messages: image(dataUrl(Buffer.from("hello"))) },
    URL_FIELD,
    /no picture/,
    "invalid_image",
  ),
  chatRow(
    "half a picture",
    { messages: image(dataUrl(picture.subarray(0, 60))) },
    URL_FIELD,
    /cannot be decoded|truncated/,
    "invalid_image",
  ),
  chatRow(
    "13 tiles",
    { messages: image(dataUrl(picture), { max_tiles: 13 }) },
    "messages[0].content[0].image_url.max_tiles",
    /is 13, must be 1…12/,
  ),
];

const texts: Row[] = [
  textRow("no prompt", {}, "prompt", /is undefined|must be a text/),
  textRow("an empty prompt", { prompt: "" }, "prompt", /is empty/),
  textRow("an empty list", { prompt: [] }, "prompt", /is empty/),
  textRow("an empty text in a list", { prompt: ["a", ""] }, "prompt[1]", /is empty/),
  textRow("a prompt of objects", { prompt: [{}] }, "prompt[0]", /must be a text or/),
  textRow("a negative id", { prompt: [-1] }, "prompt", /must be a text or a list of token ids/),
  textRow("texts and ids", { prompt: ["a", 7] }, "prompt[1]", /is 7, must be/),
  textRow("65 prompts", { prompt: Array(65).fill("a") }, "prompt", /has 65 prompts, limit 64/),
  textRow("an id beyond", { prompt: [99_999] }, "prompt", /have 99999, the vocabulary ends at/),
  textRow("messages", { prompt: "a", messages }, "messages", /not known here/, NOT_SERVED),
  textRow("a suffix", { prompt: "a", suffix: "b" }, "suffix", /is not served/, NOT_SERVED),
  textRow("best_of", { prompt: "a", best_of: 1 }, "best_of", /is not served/, NOT_SERVED),
  textRow("logprobs true", { prompt: "a", logprobs: true }, "logprobs", /is true, must be/),
  textRow(
    "a text that cannot fit",
    { prompt: "a".repeat(600_000) },
    "prompt",
    /more than 524288 bytes, the context has 4096/,
    "context_length_exceeded",
  ),
];

const tokens: Row[] = [
  { ...textRow("neither", {}, "prompt", /is missing/), path: "/tokenize" },
  { ...textRow("both", { prompt: "a", messages }, "prompt", /beside/), path: "/tokenize" },
  {
    ...textRow("a field too many", { prompt: "a", n: 1 }, "n", /is not known/, NOT_SERVED),
    path: "/tokenize",
  },
  {
    ...textRow("model", { prompt: "a", model: "x" }, "model", /served is/, "model_not_found"),
    path: "/tokenize",
  },
  { ...textRow("no tokens", {}, "tokens", /is missing/), path: "/detokenize" },
  { ...textRow("a token beyond", { tokens: [9999] }, "tokens", /9999/), path: "/detokenize" },
  { ...textRow("tokens as text", { tokens: "1" }, "tokens", /list of/), path: "/detokenize" },
];

for (const { name, path, options, status, code, param, message } of [
  ...raws,
  ...chats,
  ...texts,
  ...tokens,
])
  test(`${path}: ${name} is refused`, async () => {
    const answer = await call("POST", path, options);
    assert.match(answer.headers.get("content-type") ?? "", /^application\/json/);
    const { error } = answer.json as {
      error: { message: string; type: string; code: string; param: string | null };
    };
    assert.equal(answer.status, status, answer.text);
    assert.match(error.message, message);
    assert.deepEqual([error.param, error.code], [param, code]);
    assert.equal(error.type, "invalid_request_error");
  });

test("a refused stream has a status of its own, not an event", async () => {
  const body = { messages, stream: true, top_p: 2 };
  const { status, headers } = await call("POST", "/v1/chat/completions", { body });
  assert.equal(status, 400);
  assert.match(headers.get("content-type") ?? "", /^application\/json/);
});

test("after all of it nothing is held, and a good body is answered", async () => {
  assert.equal(await held(), 0);
  const { status } = await call("POST", "/v1/chat/completions", { body: { messages } });
  assert.equal(status, 200);
});
