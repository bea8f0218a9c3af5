/** The official OpenAI client, unmodified: responses, of which none is stored. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type OpenAI from "openai";
import { BadRequestError, NotFoundError } from "openai";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";
import { root } from "../harness/paths.js";

const { openai, call, held } = await serveHttp();
const model = "nvlm-d-tiny";
const input = "What is the name?";
const tools: OpenAI.Responses.FunctionTool[] = [
  { type: "function", name: "weather", parameters: { type: "object" }, strict: false },
];
const chatTools = [
  { type: "function" as const, function: { name: "weather", parameters: { type: "object" } } },
];

test("responses: the answer is that of a conversation, and repeats what was asked", async () => {
  const instructions = "Be short.";
  const asked = { model, input, instructions, max_output_tokens: 8, metadata: { a: "b" } };
  const answer = await openai.responses.create(asked);
  const chat = await openai.chat.completions.create({
    model,
    messages: [
      { role: "system", content: instructions },
      { role: "user", content: input },
    ],
    max_tokens: 8,
  });
  assert.match(answer.id, /^resp_\w+$/);
  assert.equal(answer.output_text, chat.choices[0]?.message.content);
  assert.equal(answer.usage?.input_tokens, chat.usage?.prompt_tokens);
  assert.equal(answer.usage?.output_tokens, chat.usage?.completion_tokens);
  assert.equal(answer.instructions, instructions);
  assert.deepEqual(answer.metadata, { a: "b" });
  assert.equal((answer as unknown as { store: boolean }).store, false);
  assert.equal(answer.status, "completed");
});

test("responses: an answer that max_output_tokens cuts is incomplete", async () => {
  const body = { model, input, max_output_tokens: 2, ignore_eos: true };
  const answer = await openai.responses.create(body);
  assert.equal(answer.status, "incomplete");
  assert.deepEqual(answer.incomplete_details, { reason: "max_output_tokens" });
  assert.equal(answer.usage?.output_tokens, 2);
});

test("responses: calls and their results are read as those of a conversation", async () => {
  const answer = await openai.responses.create({
    model,
    tools,
    max_output_tokens: 8,
    input: [
      { role: "user", content: [{ type: "input_text", text: "Oslo?" }] },
      { type: "function_call", call_id: "c", name: "weather", arguments: '{"city": "Oslo"}' },
      { type: "function_call", call_id: "d", name: "weather", arguments: "{}" },
      { type: "function_call_output", call_id: "c", output: "7" },
      { type: "function_call_output", call_id: "d", output: "8" },
    ],
  });
  const called = (id: string, text: string) => ({
    id,
    type: "function" as const,
    function: { name: "weather", arguments: text },
  });
  const chat = await openai.chat.completions.create({
    model,
    tools: chatTools,
    max_tokens: 8,
    messages: [
      { role: "user", content: "Oslo?" },
      {
        role: "assistant",
        content: null,
        tool_calls: [called("c", '{"city": "Oslo"}'), called("d", "{}")],
      },
      { role: "tool", tool_call_id: "c", content: "7" },
      { role: "tool", tool_call_id: "d", content: "8" },
    ],
  });
  assert.equal(answer.usage?.input_tokens, chat.usage?.prompt_tokens);
  assert.equal(answer.output_text, chat.choices[0]?.message.content);
});

test("responses: a picture as a data URL is read", async () => {
  const known = JSON.parse(await readFile(root("models/documents/documents.json"), "utf8")) as {
    file: string;
    questions: { question: string; answer: string }[];
  }[];
  const found = known.find(({ file }) => file === "document-02.png")?.questions[0];
  const bytes = await readFile(root("models/documents/document-02.png"));
  const url = `data:image/png;base64,${bytes.toString("base64")}`;
  const { output_text: text } = await openai.responses.create({
    model,
    max_output_tokens: 48,
    input: [
      {
        role: "user",
        content: [
          { type: "input_image", image_url: url, detail: "auto" },
          { type: "input_text", text: found?.question ?? "" },
        ],
      },
    ],
  });
  assert.equal(text, found?.answer);
});

test("responses: a stream's typed events in order make up the whole answer", async () => {
  const body = { model, input, max_output_tokens: 8, temperature: 1, seed: 3 };
  const include: OpenAI.Responses.ResponseIncludable[] = ["message.output_text.logprobs"];
  const whole = await openai.responses.create({ ...body, include });
  const stream = await openai.responses.create({ ...body, include, stream: true });
  const events: OpenAI.Responses.ResponseStreamEvent[] = [];
  for await (const event of stream) events.push(event);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, i) => i),
  );
  const types = events.map(({ type }) => type);
  const text = "response.output_text.";
  assert.deepEqual(types.slice(0, 4), [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
  ]);
  assert.ok(types.slice(4, -4).every((type) => type === `${text}delta`));
  assert.deepEqual(types.slice(-4), [
    `${text}done`,
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
  ]);
  const deltas = events.flatMap((one) =>
    one.type === "response.output_text.delta" ? [one.delta] : [],
  );
  assert.equal(deltas.join(""), whole.output_text);
  const last = events.at(-1) as OpenAI.Responses.ResponseCompletedEvent;
  const part = (of: OpenAI.Responses.Response) =>
    of.output.flatMap((item) => (item.type === "message" ? item.content : []));
  assert.deepEqual(part(last.response), part(whole));
  const helper = await openai.responses.stream(body).finalResponse();
  assert.equal(helper.output_text, whole.output_text);
});

test("responses: a client that leaves in mid-stream holds nothing", async () => {
  const body = { model, input, ignore_eos: true, max_output_tokens: 3000, stream: true } as const;
  const stream = await openai.responses.create(body);
  await stream[Symbol.asyncIterator]().next();
  stream.controller.abort();
  await eventually("nothing is held", async () => (await held()) === 0);
});

test("responses: one that is ended from outside ends as failed", async () => {
  const body = { model, input, ignore_eos: true, max_output_tokens: 3000, stream: true } as const;
  const stream = await openai.responses.create(body, { headers: { "x-request-id": "ended" } });
  let ended: Promise<unknown> | undefined;
  let last = "";
  for await (const { type } of stream) {
    last = type;
    ended ??= call("DELETE", "/v1/streams/ended");
  }
  await ended;
  assert.equal(last, "response.failed");
});

test("responses: none is stored", async () => {
  for (const ask of [
    () => openai.responses.retrieve("resp_a"),
    () => openai.responses.delete("resp_a"),
  ])
    await assert.rejects(ask, (error: unknown) => {
      assert.ok(error instanceof NotFoundError, String(error));
      assert.match(error.message, /answers are not stored/);
      return true;
    });
  await assert.rejects(openai.responses.create({ model, input, store: true }), BadRequestError);
});

const user = (content: unknown) => ({ input: [{ role: "user", content }] });
const rows: [change: object, param: string][] = [
  [{ input: undefined }, "input"],
  [{ input: 7 }, "input"],
  [{ input: [] }, "input"],
  [{ input: [7] }, "input[0]"],
  [{ input: [{ role: "tool", content: "a" }] }, "input[0].role"],
  [{ input: [{ type: "item_reference", id: "a" }] }, "input[0].type"],
  [{ input: [{ type: "reasoning", summary: [] }] }, "input[0].type"],
  [{ input: [{ type: "computer_call" }] }, "input[0].type"],
  [user(7), "input[0].content"],
  [user([{ type: "text", text: "a" }]), "input[0].content[0].type"],
  [user([{ type: "input_file", file_id: "a" }]), "input[0].content[0].type"],
  [user([{ type: "input_text", text: 7 }]), "input[0].content[0].text"],
  [user([{ type: "input_image", file_id: "a" }]), "input[0].content[0].file_id"],
  [
    user([{ type: "input_image", image_url: "https://a.example/b.png" }]),
    "input[0].content[0].image_url",
  ],
  [
    user([{ type: "input_image", image_url: "data:image/png;base64,AAAA" }]),
    "input[0].content[0].image_url",
  ],
  [
    user([{ type: "input_image", image_url: "data:image/png;base64,AAAA", detail: "best" }]),
    "input[0].content[0].detail",
  ],
  [{ input: [{ type: "function_call", name: "f", arguments: "{}" }] }, "input[0].call_id"],
  [{ input: [{ type: "function_call_output", call_id: 7, output: "" }] }, "input[0].call_id"],
  [{ instructions: 7 }, "instructions"],
  [{ max_output_tokens: -1 }, "max_output_tokens"],
  [{ max_output_tokens: "8" }, "max_output_tokens"],
  [{ temperature: -1 }, "temperature"],
  [{ top_p: 2 }, "top_p"],
  [{ top_logprobs: 99 }, "top_logprobs"],
  [{ tools: [{ type: "web_search" }] }, "tools[0].type"],
  [{ tools: [{ type: "function", name: 7 }] }, "tools[0].name"],
  [{ tools: [{ type: "function", name: "f", strict: "no" }] }, "tools[0].strict"],
  [{ tool_choice: "some" }, "tool_choice"],
  [{ tools, tool_choice: { type: "function", name: 7 } }, "tool_choice.name"],
  [{ tools, tool_choice: { type: "allowed_tools" } }, "tool_choice.type"],
  [{ text: { format: { type: "xml" } } }, "text.format.type"],
  [{ text: { format: { type: "json_schema", schema: {} } } }, "text.format.name"],
  [{ text: { verbosity: "high" } }, "text.verbosity"],
  [{ include: ["file_search_call.results"] }, "include[0]"],
  [{ truncation: "auto" }, "truncation"],
  [{ store: true }, "store"],
  [{ previous_response_id: "resp_a" }, "previous_response_id"],
  [{ conversation: "conv_a" }, "conversation"],
  [{ background: true }, "background"],
  [{ prompt: { id: "a" } }, "prompt"],
  [{ reasoning: { effort: "low" } }, "reasoning"],
  [{ metadata: { a: 1 } }, "metadata"],
  [{ stream_options: { include_usage: true } }, "stream_options.include_usage"],
  [{ messages: [] }, "messages"],
  [{ n: 2 }, "n"],
];
for (const [i, [change, param]] of rows.entries())
  test(`responses: bad body ${i} is refused for ${param}`, async () => {
    const answer = await call("POST", "/v1/responses", { body: { input, ...change } });
    assert.equal(answer.status, 400, answer.text);
    const { error } = answer.json as { error: { param: string; message: string } };
    assert.equal(error.param, param);
    assert.ok(error.message.includes(param), error.message);
    assert.equal(await held(), 0);
  });
