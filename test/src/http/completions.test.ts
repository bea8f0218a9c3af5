/** The official OpenAI client, unmodified: completions, models, and vLLM's pages of tokens. */
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { BadRequestError } from "openai";
import { serveHttp } from "../harness/http-front.js";

const { openai, client, call } = await serveHttp();
const model = "nvlm-d-tiny";
const prompt = "The total is";

interface Tokens {
  count: number;
  tokens: number[];
  token_strs: string[] | null;
  max_model_len: number;
}

async function tokensOf(body: object): Promise<Tokens> {
  const { status, json, text } = await call("POST", "/tokenize", { body });
  assert.equal(status, 200, text);
  return json as Tokens;
}

async function collect(body: Omit<OpenAI.CompletionCreateParamsStreaming, "stream">) {
  const stream = await openai.completions.create({ ...body, stream: true });
  const chunks: OpenAI.Completion[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const of = (chunks: OpenAI.Completion[], index: number) =>
  chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index));

test("completions: a text and its token ids give what gRPC gives to those ids", async () => {
  const { tokens } = await tokensOf({ prompt });
  const same = await client.generateOnce({ tokenIds: tokens, maxTokens: 16 });
  const asked = [prompt, tokens, [prompt], [tokens]];
  for (const one of asked) {
    const answer = await openai.completions.create({ model, prompt: one });
    assert.equal(answer.object, "text_completion");
    assert.equal(answer.choices.length, 1);
    assert.equal(answer.choices[0]?.text, same.choices[0]?.text);
    assert.equal(answer.usage?.prompt_tokens, tokens.length);
  }
});

test("completions: 16 tokens at most where the body does not say", async () => {
  const body = { model, prompt, ignore_eos: true };
  for (const more of [{}, { max_tokens: null }]) {
    const { choices, usage } = await openai.completions.create({ ...body, ...more });
    assert.equal(usage?.completion_tokens, 16);
    assert.equal(choices[0]?.finish_reason, "length");
  }
});

test("completions: several prompts are answered under an id as long as one may be", async () => {
  const id = "x".repeat(64);
  const headers = { "x-request-id": id };
  const asked = { model, prompt: ["A", "The total is"], max_tokens: 2 };
  const answer = await openai.completions.create(asked, { headers });
  assert.equal(answer.id, id);
  assert.equal(answer.choices.length, 2);
  const request_id = "x".repeat(65);
  await assert.rejects(
    openai.completions.create({ ...asked, ...{ request_id } }),
    (error: unknown) => error instanceof BadRequestError && error.param === "request_id",
  );
});

test("completions: several prompts and choices come in order, and their usage is one sum", async () => {
  const prompts = ["The name is", "A", "The total is"];
  const shared = { model, n: 2, temperature: 1, seed: 3, max_tokens: 6 };
  const { choices, usage } = await openai.completions.create({ ...shared, prompt: prompts });
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2, 3, 4, 5],
  );
  const alone = await Promise.all(
    prompts.map((one) => openai.completions.create({ ...shared, prompt: one })),
  );
  assert.deepEqual(
    choices.map(({ text }) => text),
    alone.flatMap((answer) => answer.choices.map(({ text }) => text)),
  );
  const total = alone.reduce((sum, answer) => sum + (answer.usage?.total_tokens ?? NaN), 0);
  assert.equal(usage?.total_tokens, total);
  const options = { include_usage: true };
  const chunks = await collect({ ...shared, prompt: prompts, stream_options: options });
  for (const { index, text, finish_reason: reason } of choices) {
    const own = of(chunks, index);
    assert.equal(own.map((choice) => choice.text).join(""), text);
    const reasons = own.map((choice) => choice.finish_reason as string | null);
    assert.deepEqual(
      reasons.filter((one) => one !== null),
      [reason],
    );
  }
  assert.deepEqual(chunks.at(-1)?.choices, []);
  assert.deepEqual(chunks.at(-1)?.usage, usage);
  assert.equal(chunks.filter((chunk) => chunk.choices.length === 0).length, 1);
});

test("completions: as many prompts as there may be, whole and streamed, without a warning", async () => {
  const warnings: string[] = [];
  const hear = ({ message }: Error) => void warnings.push(message);
  process.on("warning", hear);
  const body = { model, prompt: Array<string>(64).fill(prompt), max_tokens: 2, ignore_eos: true };
  const { choices } = await openai.completions.create(body);
  assert.equal(choices.length, 64);
  assert.equal(new Set(choices.map(({ text }) => text)).size, 1);
  const chunks = await collect(body);
  for (const { index, text } of choices)
    assert.equal(
      of(chunks, index)
        .map((choice) => choice.text)
        .join(""),
      text,
    );
  process.off("warning", hear);
  assert.deepEqual(warnings, []);
});

test("completions: logprobs have a token, its offset and the best beside it; streamed they are the same", async () => {
  const body = { model, prompt, logprobs: 2, max_tokens: 10, temperature: 1, seed: 5 };
  const { choices } = await openai.completions.create(body);
  const [choice] = choices;
  const { tokens = [], token_logprobs: own = [], top_logprobs: top = [] } = choice?.logprobs ?? {};
  const offsets = choice?.logprobs?.text_offset ?? [];
  assert.ok(tokens.length > 0);
  for (const list of [own, top, offsets]) assert.equal(list.length, tokens.length);
  const text = choice?.text ?? "";
  tokens.forEach((token, i) => {
    const shown = text.slice(offsets[i], offsets[i + 1]);
    assert.ok(shown === token || i === tokens.length - 1, `${token} ${shown}`);
    assert.equal(top[i]?.[token], own[i]);
    assert.ok(Object.keys(top[i] ?? {}).length >= 2);
  });
  const streamed = of(await collect(body), 0).flatMap(({ logprobs }) => logprobs ?? []);
  assert.deepEqual(
    streamed.flatMap((part) => part.text_offset ?? []),
    offsets,
  );
  assert.deepEqual(
    streamed.flatMap((part) => part.token_logprobs ?? []),
    own,
  );
});

test("completions: an echo begins with the prompt", async () => {
  const plain = await openai.completions.create({ model, prompt, max_tokens: 4 });
  const body = { model, prompt, echo: true, max_tokens: 4 };
  const echoed = await openai.completions.create(body);
  assert.equal(echoed.choices[0]?.text, prompt + (plain.choices[0]?.text ?? ""));
  const chunks = await collect(body);
  const text = of(chunks, 0).map((choice) => choice.text);
  assert.equal(text.join(""), echoed.choices[0].text);
});

test("completions: an echo with logprobs shows the prompt's tokens too, streamed the same", async () => {
  const body = { model, prompt, echo: true, logprobs: 1, max_tokens: 4, ignore_eos: true };
  const { tokens } = await tokensOf({ prompt, return_token_strs: true });
  const { choices } = await openai.completions.create(body);
  const { text, logprobs } = choices[0] ?? assert.fail();
  const shown = logprobs?.tokens ?? [];
  assert.equal(shown.length, tokens.length + 4);
  assert.equal(shown.slice(0, tokens.length).join(""), prompt);
  const own: (number | null)[] = logprobs?.token_logprobs ?? [];
  assert.deepEqual([own[0], own.filter((one) => one === null).length], [null, 1]);
  const offset = logprobs?.text_offset?.[tokens.length];
  assert.equal(text.slice(0, offset), prompt);
  const parts = of(await collect(body), 0).flatMap((choice) => choice.logprobs ?? []);
  assert.deepEqual(
    parts.flatMap((part) => part.tokens ?? []),
    shown,
  );
});

test("completions: ids of prompt and answer come where they are asked for", async () => {
  const { tokens } = await tokensOf({ prompt });
  const { json } = await call("POST", "/v1/completions", {
    body: { prompt, return_token_ids: true, max_tokens: 3, ignore_eos: true },
  });
  const [choice] = (json as { choices: { token_ids: number[]; prompt_token_ids: number[] }[] })
    .choices;
  assert.deepEqual(choice?.prompt_token_ids, tokens);
  assert.equal(choice.token_ids.length, 3);
});

test("completions: suffix and best_of are refused by name", async () => {
  for (const more of [{ suffix: "x" }, { best_of: 2 }])
    await assert.rejects(
      openai.completions.create({ model, prompt, ...more }),
      (error: unknown) => error instanceof BadRequestError && error.param === Object.keys(more)[0],
    );
});

test("models: the one that is served, in the list and by its name", async () => {
  const all: OpenAI.Model[] = [];
  for await (const one of openai.models.list()) all.push(one);
  assert.equal(all.length, 1);
  assert.equal(all[0]?.id, model);
  assert.equal(all[0].object, "model");
  assert.deepEqual(await openai.models.retrieve(model), all[0]);
});

test("tokens: a conversation's are those of its prompt, a text's go back to it", async () => {
  const messages = [{ role: "user" as const, content: "Grüße, 名前?" }];
  const chat = await tokensOf({ messages, return_token_strs: true });
  const { usage } = await openai.chat.completions.create({ model, messages, max_tokens: 1 });
  assert.equal(chat.count, usage?.prompt_tokens);
  assert.equal(chat.token_strs?.length, chat.count);
  assert.equal(chat.max_model_len, 4096);
  const text = "Grüße <|im_end|> 名前";
  const { tokens, token_strs: none } = await tokensOf({ model, prompt: text });
  assert.equal(none, null);
  const back = await call("POST", "/detokenize", { body: { model, tokens } });
  assert.deepEqual(back.json, { prompt: text });
});
