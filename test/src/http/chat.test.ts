/** The official OpenAI client, unmodified: conversations. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type OpenAI from "openai";
import { Role } from "@tessera/client";
import { serveHttp } from "../harness/http-front.js";
import { root } from "../harness/paths.js";

const { openai, client } = await serveHttp();
const model = "nvlm-d-tiny";
const messages = [{ role: "user" as const, content: "What is the name?" }];

type Body = OpenAI.ChatCompletionCreateParamsNonStreaming;

test("chat: the answer is that of gRPC, with its ids and its usage", async () => {
  const { data, response } = await openai.chat.completions
    .create({ model, messages, max_completion_tokens: 8 })
    .withResponse();
  const parts = [{ content: { case: "text" as const, value: "What is the name?" } }];
  const same = await client.generateOnce({ messages: [{ role: Role.USER, parts }], maxTokens: 8 });
  const [choice] = data.choices;
  assert.equal(choice?.message.content, same.choices[0]?.text);
  assert.equal(choice?.message.role, "assistant");
  assert.equal(choice?.finish_reason, "stop");
  assert.equal(data.object, "chat.completion");
  assert.equal(data.model, model);
  assert.equal(response.headers.get("x-request-id"), data.id);
  const { promptTokens = 0, completionTokens = 0 } = same.usage ?? {};
  assert.equal(data.usage?.prompt_tokens, promptTokens);
  assert.equal(data.usage.completion_tokens, completionTokens);
  assert.equal(data.usage.total_tokens, promptTokens + completionTokens);
});

test("chat: the client's x-request-id names the request; one that does not fit is not taken", async () => {
  const ask = (id: string) =>
    openai.chat.completions
      .create({ model, messages, max_tokens: 1 }, { headers: { "x-request-id": id } })
      .withResponse();
  const named = await ask("my-request.1");
  assert.equal(named.data.id, "my-request.1");
  assert.equal(named.response.headers.get("x-request-id"), "my-request.1");
  const other = await ask("no/id");
  assert.match(other.data.id, /^req-/);
});

const documents = [
  ["document-02.png", "image/png"],
  ["document-06.jpg", "image/jpeg"],
  ["document-09.webp", "image/webp"],
] as const;
const known = JSON.parse(await readFile(root("models/documents/documents.json"), "utf8")) as {
  file: string;
  questions: { question: string; answer: string }[];
}[];
for (const [file, type] of documents)
  test(`chat: a picture as a data URL is read, ${file}`, async () => {
    const bytes = await readFile(root(`models/documents/${file}`));
    const url = `data:${type};base64,${bytes.toString("base64")}`;
    const questions = known.find((one) => one.file === file)?.questions ?? [];
    assert.ok(questions.length > 0);
    for (const { question, answer } of questions) {
      const { choices } = await openai.chat.completions.create({
        model,
        messages: [
          {
            role: "user",
            content: [
              { type: "image_url", image_url: { url, detail: "auto" } },
              { type: "text", text: question },
            ],
          },
        ],
        max_tokens: 48,
      });
      assert.equal(choices[0]?.message.content, answer);
    }
  });

/** Chunks of a stream put together, as many choices as there are. */
async function collect(body: Omit<OpenAI.ChatCompletionCreateParamsStreaming, "stream">) {
  const stream = await openai.chat.completions.create({ ...body, stream: true });
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const choices = Array.from({ length: body.n ?? 1 }, (_, index) => {
    const own = chunks.flatMap((chunk) => chunk.choices.filter((one) => one.index === index));
    return {
      role: own.map(({ delta }) => delta.role).filter((role) => role !== undefined),
      text: own.map(({ delta }) => delta.content ?? "").join(""),
      reasons: own.map((one) => one.finish_reason).filter((reason) => reason !== null),
      logprobs: own.flatMap((one) => one.logprobs?.content ?? []),
    };
  });
  return { chunks, choices };
}

const sampled = { model, messages, temperature: 1, seed: 7, n: 3, max_tokens: 12 };

test("chat: a stream's pieces are the whole answer, role first, reason last, choice by choice", async () => {
  const body = { ...sampled, logprobs: true, top_logprobs: 2 };
  const whole = await openai.chat.completions.create(body);
  const { chunks, choices } = await collect(body);
  assert.deepEqual(
    choices.map(({ text }) => text),
    whole.choices.map(({ message }) => message.content),
  );
  assert.deepEqual(
    choices.map(({ logprobs }) => logprobs),
    whole.choices.map(({ logprobs }) => logprobs?.content),
  );
  for (const [i, { role, reasons }] of choices.entries()) {
    assert.deepEqual(role, ["assistant"]);
    assert.deepEqual(reasons, [whole.choices[i]?.finish_reason]);
  }
  assert.equal(chunks[0]?.choices[0]?.delta.role, "assistant");
  assert.ok(chunks.every(({ object }) => object === "chat.completion.chunk"));
  assert.ok(chunks.every((chunk) => !("usage" in chunk)));
});

test("chat: logprobs name tokens with their bytes, the best first", async () => {
  const { choices } = await openai.chat.completions.create({
    model,
    messages,
    logprobs: true,
    top_logprobs: 3,
    max_tokens: 4,
  });
  const content = choices[0]?.logprobs?.content ?? [];
  assert.ok(content.length > 0);
  for (const { token, bytes, logprob, top_logprobs: top } of content) {
    assert.equal(Buffer.from(bytes ?? []).toString("utf8"), token);
    assert.equal(top.length, 3);
    // Greedy: the best is the one that was taken.
    assert.equal(top[0]?.token, token);
    assert.equal(top[0]?.logprob, logprob);
    assert.ok(top.every((one, i) => i === 0 || one.logprob <= (top[i - 1]?.logprob ?? 0)));
  }
});

test("chat: a seed gives the same answers again, another one others", async () => {
  const long: Body = { ...sampled, n: 1, temperature: 2, max_tokens: 16 };
  const texts = async (seed: number) =>
    (await openai.chat.completions.create({ ...long, seed })).choices.map(
      ({ message }) => message.content,
    );
  assert.deepEqual(await texts(1), await texts(1));
  assert.notDeepEqual(await texts(1), await texts(2));
});

test("chat: a stop text ends the answer before it", async () => {
  const whole = await openai.chat.completions.create({ model, messages, max_tokens: 8 });
  const text = whole.choices[0]?.message.content ?? "";
  assert.ok(text.length > 2);
  const stop = text.slice(1, 3);
  const cut = await openai.chat.completions.create({ model, messages, max_tokens: 8, stop });
  assert.equal(cut.choices[0]?.message.content, text.slice(0, text.indexOf(stop)));
  assert.equal(cut.choices[0].finish_reason, "stop");
});

test("chat: a length is said where it ended the answer", async () => {
  const { choices } = await openai.chat.completions.create({ model, messages, max_tokens: 1 });
  assert.equal(choices[0]?.finish_reason, "length");
});

test("chat: include_usage puts the whole usage behind the last choice, and null before", async () => {
  const whole = await openai.chat.completions.create(sampled);
  const { chunks } = await collect({ ...sampled, stream_options: { include_usage: true } });
  const last = chunks.pop();
  assert.deepEqual(last?.choices, []);
  assert.deepEqual(last.usage, whole.usage);
  assert.ok(chunks.every(({ usage }) => usage === null));
});

test("chat: continuous_usage_stats counts the tokens in every chunk, and shows no ids", async () => {
  const options = { include_usage: true, continuous_usage_stats: true };
  const { chunks } = await collect({ ...sampled, stream_options: options });
  const counts = chunks.map(({ usage }) => usage?.completion_tokens ?? NaN);
  assert.equal(counts[0], 0);
  assert.ok(counts.every((count, i) => i === 0 || count >= (counts[i - 1] ?? 0)));
  assert.equal(counts.at(-1), counts.at(-2));
  assert.ok((counts.at(-1) ?? 0) > 0);
  const ids = chunks.flatMap(({ choices }) => choices.filter((choice) => "token_ids" in choice));
  assert.deepEqual(ids, []);
});

test("chat: the client's stream helper ends with the whole answer", async () => {
  const whole = await openai.chat.completions.create({ model, messages, max_tokens: 8 });
  const runner = openai.chat.completions.stream({ model, messages, max_tokens: 8 });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0]?.message.content, whole.choices[0]?.message.content);
});
