/** Failures as the official client's typed errors, and what a client that leaves frees. */
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, {
  APIUserAbortError,
  BadRequestError,
  ConflictError,
  NotFoundError,
  RateLimitError,
} from "openai";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";
import { allEvents } from "../harness/server-events.js";

const MAX_REQUESTS = 2;
const { openai, url, held, call } = await serveHttp({ maxRequests: MAX_REQUESTS });
const model = "nvlm-d-tiny";
const messages = [{ role: "user" as const, content: "What is the name?" }];
const LENGTH = 3000;
/** Runs until it is ended. */
const long = {
  model,
  messages,
  max_tokens: LENGTH,
  ignore_eos: true,
  stream: true,
} as OpenAI.ChatCompletionCreateParamsStreaming;

const idle = () => eventually("nothing is held", async () => (await held()) === 0);

test("errors: a wrong value is a BadRequestError that names its field", async () => {
  const asked = openai.chat.completions.create({ model, messages, temperature: -1 });
  await assert.rejects(asked, (error: unknown) => {
    assert.ok(error instanceof BadRequestError, String(error));
    assert.equal(error.param, "temperature");
    assert.equal(error.type, "invalid_request_error");
    assert.equal(error.code, "invalid_value");
    assert.match(error.message, /^400 temperature: is -1, must be/);
    assert.match(error.requestID ?? "", /^req-/);
    return true;
  });
});

test("errors: another model is a NotFoundError of code model_not_found", async () => {
  const asked = openai.chat.completions.create({ model: "gpt-4o", messages });
  await assert.rejects(asked, (error: unknown) => {
    assert.ok(error instanceof NotFoundError, String(error));
    assert.equal(error.code, "model_not_found");
    assert.equal(error.param, "model");
    return true;
  });
  await assert.rejects(openai.models.retrieve("gpt-4o"), NotFoundError);
});

test("errors: a picture's web address is refused with the reason", async () => {
  const content = [{ type: "image_url" as const, image_url: { url: "https://example.org/a.png" } }];
  const asked = openai.chat.completions.create({ model, messages: [{ role: "user", content }] });
  await assert.rejects(asked, (error: unknown) => {
    assert.ok(error instanceof BadRequestError, String(error));
    assert.equal(error.param, "messages[0].content[0].image_url.url");
    assert.match(error.message, /never fetched from the network/);
    return true;
  });
});

test("errors: more than the context is a BadRequestError of code context_length_exceeded", async () => {
  const asked = openai.chat.completions.create({ model, messages, max_tokens: 4090 });
  await assert.rejects(asked, (error: unknown) => {
    assert.ok(error instanceof BadRequestError, String(error));
    assert.equal(error.code, "context_length_exceeded");
    return true;
  });
});

test("abort: a client that leaves in mid-stream frees its sequence on the server", async () => {
  const stream = await openai.chat.completions.create(long);
  let chunks = 0;
  const reading = async () => {
    for await (const chunk of stream) {
      chunks += chunk.choices.length;
      if (chunks > 3) break;
    }
  };
  await reading();
  assert.ok(chunks > 3);
  await idle();
});

test("abort: a signal that aborts a whole answer frees its sequence as well", async () => {
  const abort = new AbortController();
  const body = { ...long, stream: false as const };
  const asked = openai.chat.completions.create(body, { signal: abort.signal });
  const aborted = assert.rejects(asked, APIUserAbortError);
  await eventually("it runs", async () => (await held()) > 0);
  abort.abort();
  await aborted;
  await idle();
});

test("errors: one request too many is a RateLimitError with a time to wait", async () => {
  const streams = await Promise.all(
    Array.from({ length: MAX_REQUESTS }, () => openai.chat.completions.create(long)),
  );
  await assert.rejects(openai.chat.completions.create({ model, messages }), (error: unknown) => {
    assert.ok(error instanceof RateLimitError, String(error));
    assert.equal(error.code, "rate_limit_exceeded");
    assert.match(error.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
    return true;
  });
  for (const stream of streams) stream.controller.abort();
  await idle();
});

test("errors: an id that runs is a ConflictError; DELETE ends it, and its stream says so", async () => {
  const headers = { "x-request-id": "twice" };
  const stream = await openai.chat.completions.create(long, { headers });
  await assert.rejects(openai.chat.completions.create(long, { headers }), ConflictError);
  const reasons: (string | null)[] = [];
  const reading = (async () => {
    for await (const { choices } of stream)
      reasons.push(...choices.map(({ finish_reason: reason }) => reason));
  })();
  const ended = await call("DELETE", "/v1/streams/twice");
  assert.deepEqual(ended.json, { id: "twice", object: "stream", aborted: true });
  await reading;
  assert.equal(reasons.at(-1), "abort");
  const again = await call("DELETE", "/v1/streams/twice");
  assert.equal(again.status, 404);
  await idle();
});

test("errors: several prompts of one body end together when one is refused", async () => {
  const prompt = Array<string>(MAX_REQUESTS + 1).fill("a");
  const asked = openai.completions.create({ model, prompt, max_tokens: LENGTH });
  await assert.rejects(asked, RateLimitError);
  const wrong = await call("POST", "/v1/completions", { body: { prompt: [[65], [5000]] } });
  assert.equal(wrong.status, 400);
  await idle();
});

test("streams: events are events, not kept by a proxy, and end with [DONE]", async () => {
  const body = JSON.stringify({ messages, max_tokens: 2, stream: true });
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assert.equal(response.headers.get("cache-control"), "no-cache");
  const events = await allEvents(response);
  assert.equal(events.at(-1)?.data, "[DONE]");
  assert.ok(events.every(({ id }) => id === undefined));
});
