/** Texts of the largest size are tokenised beside what runs, and hold up nobody. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { APIUserAbortError } from "openai";
import { loadTokenizer } from "@tessera/coordinator/request";
import { eventually } from "../harness/eventually.js";
import { callHttp, serveHttp } from "../harness/http-front.js";
import { root } from "../harness/paths.js";
import { valueOf } from "../harness/prometheus.js";

const { call, openai, coordinator } = await serveHttp({ healthListen: "127.0.0.1:0" });
const model = "nvlm-d-tiny";
const CONTEXT = 4096;
/** As long as a text may be: letters of one word, the worst there is. */
const LARGEST = "qzjxkvbw".repeat((128 * CONTEXT) / 8);
const LONG_COUNT = 6;

const messages = (content: string) => [{ role: "user" as const, content }];
const ask = (content: string) =>
  call("POST", "/v1/chat/completions", {
    body: { model, messages: messages(content), max_tokens: 1 },
  });

async function open(): Promise<number> {
  const { text } = await callHttp(`http://${coordinator.healthAddress}/metrics`, "GET");
  return valueOf(text, "tessera_num_requests_open");
}

/** `chunks`: of the stream so far. */
async function besides(chunks: () => number): Promise<void> {
  const order: string[] = [];
  const seen: number[] = [];
  const longs = Array.from({ length: LONG_COUNT }, async () => {
    const answer = await ask(LARGEST);
    order.push("long");
    seen.push(chunks());
    return answer;
  });
  // Seen only where the event loop is free while they are prepared.
  await eventually("all are open", async () => (await open()) === LONG_COUNT + 1);
  const short = await ask("Hello");
  order.push("short");
  assert.equal(short.status, 200, short.text);
  for (const { status, json, text } of await Promise.all(longs)) {
    assert.equal(status, 400, text);
    const { error } = json as { error: { code: string; message: string } };
    assert.equal(error.code, "context_length_exceeded");
    assert.match(error.message, /^max_tokens: prompt of \d+ tokens and 1 to make/);
  }
  assert.notEqual(order.at(-1), "short");
  // Between any two answers the stream has moved.
  assert.equal(new Set(seen).size, LONG_COUNT, seen.join());
}

test("long texts: a stream goes on and a short request is answered while they are tokenised", async () => {
  const stream = await openai.chat.completions.create({
    model,
    messages: messages("The total is"),
    stream: true,
    max_tokens: 3900,
    ...{ ignore_eos: true },
  });
  let chunks = 0;
  const read = (async () => {
    for await (const { choices } of stream) chunks += choices.length;
  })();
  try {
    await eventually("the stream runs", () => chunks > 2);
    await besides(() => chunks);
  } finally {
    stream.controller.abort();
    await read;
  }
});

test("long texts: their ids are the tokenizer's", async () => {
  const tokenizer = await loadTokenizer(root("models/nvlm-d-tiny"));
  const prompt = `${" ".repeat(200_000)}${LARGEST.slice(0, 200_000)}`;
  const { json } = await call("POST", "/tokenize", { body: { prompt } });
  const { tokens } = json as { tokens: number[] };
  assert.deepEqual(tokens, tokenizer.encode(prompt, { special: false }));
});

test("long texts: prompts of a completion are refused by their tokens", async () => {
  const body = { model, prompt: ["a", LARGEST], max_tokens: 1 };
  const { status, json, text } = await call("POST", "/v1/completions", { body });
  assert.equal(status, 400, text);
  assert.equal((json as { error: { code: string } }).error.code, "context_length_exceeded");
});

test("long texts: nothing is held for clients that left while theirs waited", async () => {
  const left = new AbortController();
  const calls = Array.from({ length: LONG_COUNT }, () =>
    openai.chat.completions.create(
      { model, messages: messages(LARGEST), max_tokens: 1 },
      { signal: left.signal },
    ),
  );
  const settled = Promise.allSettled(calls);
  await eventually("some are open", async () => (await open()) > 1);
  left.abort();
  for (const result of await settled)
    assert.ok(result.status === "fulfilled" || isAnswer(result.reason), result.status);
  await eventually("none is open", async () => (await open()) === 0);
  assert.equal((await ask("Hello")).status, 200);
});

/** Ended by the client, or refused before. */
function isAnswer(error: unknown): boolean {
  return error instanceof APIUserAbortError || (error as { status?: number }).status === 400;
}
