/** Events as OpenAI's chunks. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { EventSchema, FinishReason, type Event } from "../gen/tessera/v1/inference_pb.js";
import { ChatChunks, sumUsage, usageWanted, UsageOfChunks, type StreamFormat } from "./chunks.js";

const name = { id: "r", model: "m" };
const format: StreamFormat = {
  createdSeconds: 5,
  n: 1,
  usage: "none",
  tokenIds: false,
  logprobs: false,
  promptLogprobs: false,
};
const event = (kind: NonNullable<MessageInitShape<typeof EventSchema>["kind"]>): Event =>
  create(EventSchema, { kind });
const delta = (value: object) => event({ case: "delta", value });
const head = { id: "r", object: "chat.completion.chunk", created: 5, model: "m" };

test("chat chunks: the first has the role of every choice", () => {
  const chunk = new ChatChunks(name, { ...format, n: 2 }).take(
    event({ case: "started", value: { promptTokens: 3 } }),
  );
  const first = { delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null };
  const choices = [0, 1].map((index) => ({ index, ...first }));
  assert.deepEqual(chunk, { ...head, choices });
});

test("chat chunks: a call's first piece has id, type and name, later ones have arguments alone", () => {
  const chunks = new ChatChunks(name, format);
  const pieces = [
    { text: "Look", toolCalls: [{ index: 0, id: "call_1", name: "f", arguments: "" }] },
    { text: "", toolCalls: [{ index: 0, arguments: '{"a"' }] },
    {
      text: "",
      toolCalls: [
        { index: 0, arguments: ": 1}" },
        { index: 1, id: "call_2", name: "g", arguments: "{}" },
      ],
    },
  ];
  const deltas = pieces.map((value) => chunks.take(delta(value))?.choices[0]);
  const of = (body: object) => ({ index: 0, delta: body, logprobs: null, finish_reason: null });
  assert.deepEqual(deltas, [
    of({
      content: "Look",
      tool_calls: [
        { index: 0, id: "call_1", type: "function", function: { name: "f", arguments: "" } },
      ],
    }),
    of({ tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] }),
    of({
      tool_calls: [
        { index: 0, function: { arguments: ": 1}" } },
        { index: 1, id: "call_2", type: "function", function: { name: "g", arguments: "{}" } },
      ],
    }),
  ]);
  const end = chunks.take(
    event({ case: "finished", value: { reason: FinishReason.TOOL_CALLS, choice: 0 } }),
  );
  assert.deepEqual(end?.choices, [
    { index: 0, delta: {}, logprobs: null, finish_reason: "tool_calls" },
  ]);
});

test("chat chunks: the end of a stream is a chunk only where usage was asked for", () => {
  const done = event({ case: "done", value: { usage: { promptTokens: 3, completionTokens: 4 } } });
  assert.equal(new ChatChunks(name, format).take(done), undefined);
  const usage = {
    prompt_tokens: 3,
    completion_tokens: 4,
    total_tokens: 7,
    prompt_tokens_details: { cached_tokens: 0 },
  };
  const last = new ChatChunks(name, { ...format, usage: "end" }).take(done);
  assert.deepEqual(last, { ...head, choices: [], usage });
});

test("chat chunks: running usage counts all choices, and is what makes a stream remember", () => {
  const chunks = new ChatChunks(name, { ...format, n: 2, usage: "always" });
  assert.equal(chunks.remembers, true);
  assert.equal(new ChatChunks(name, { ...format, usage: "end" }).remembers, false);
  const first = chunks.take(event({ case: "started", value: { promptTokens: 3 } }));
  assert.deepEqual(first?.usage, { prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 });
  chunks.take(delta({ choice: 0, text: "a", tokenIds: [1, 2] }));
  const later = chunks.take(delta({ choice: 1, text: "b", tokenIds: [3] }));
  assert.deepEqual(later?.usage, { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 });
});

test("usage: of several requests it comes once, behind the last, as their sum", () => {
  const usage = new UsageOfChunks("end", 2);
  const done = event({
    case: "done",
    value: { usage: { promptTokens: 3, completionTokens: 4, cachedTokens: 2 } },
  });
  usage.count(done);
  assert.equal(usage.last(done), undefined);
  usage.count(done);
  const sum = {
    prompt_tokens: 6,
    completion_tokens: 8,
    total_tokens: 14,
    prompt_tokens_details: { cached_tokens: 4 },
  };
  assert.deepEqual(usage.last(done), { choices: [], usage: sum });
  assert.equal(sumUsage([]).total_tokens, 0);
});

test("usage: what of a body's stream_options asks for it", () => {
  const of = (options: unknown) => usageWanted({ stream_options: options });
  assert.equal(usageWanted({}), "none");
  assert.equal(of(null), "none");
  assert.equal(of({ include_usage: false }), "none");
  assert.equal(of({ include_usage: true }), "end");
  assert.equal(of({ include_usage: true, continuous_usage_stats: true }), "always");
});
