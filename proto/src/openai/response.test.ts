/** Answers as OpenAI's bodies. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { FinishReason, GenerateOnceResponseSchema } from "../gen/tessera/v1/inference_pb.js";
import { toGenerateRequest } from "./request.js";
import { toChatCompletion, toPromptLogprobs, wantedOf } from "./response.js";

const plain = { tokenIds: false, logprobs: false, promptLogprobs: false };
const bytes = (text: string) => Buffer.from(text);

test("response: calls, null content, the reason, cached tokens", () => {
  const toolCalls = [
    { index: 0, id: "call_a", name: "f", arguments: '{"a": 1}' },
    { index: 1, id: "call_b", name: "g", arguments: "{}" },
  ];
  const answer = create(GenerateOnceResponseSchema, {
    started: { requestId: "r", model: "m" },
    choices: [{ toolCalls, finished: { reason: FinishReason.TOOL_CALLS } }],
    usage: { promptTokens: 40, completionTokens: 9, cachedTokens: 32 },
  });
  assert.deepEqual(toChatCompletion(answer, plain, 7), {
    id: "r",
    object: "chat.completion",
    created: 7,
    model: "m",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: null,
          refusal: null,
          tool_calls: [
            { id: "call_a", type: "function", function: { name: "f", arguments: '{"a": 1}' } },
            { id: "call_b", type: "function", function: { name: "g", arguments: "{}" } },
          ],
        },
        finish_reason: "tool_calls",
        logprobs: null,
      },
    ],
    usage: {
      prompt_tokens: 40,
      completion_tokens: 9,
      total_tokens: 49,
      prompt_tokens_details: { cached_tokens: 32 },
    },
  });
});

test("response: an answer without text and calls has an empty content", () => {
  const answer = create(GenerateOnceResponseSchema, { choices: [{ text: "" }] });
  const [choice] = toChatCompletion(answer, plain, 0).choices;
  assert.deepEqual(choice?.message, { role: "assistant", content: "", refusal: null });
});

test("response: a message it gives is taken back as a request's", async () => {
  const toolCalls = [{ index: 0, id: "call_a", name: "f", arguments: '{"a": 1}' }];
  const answer = create(GenerateOnceResponseSchema, { choices: [{ toolCalls }] });
  const message = toChatCompletion(answer, plain, 0).choices[0]?.message;
  const { messages } = await toGenerateRequest({ messages: [message] });
  const [back] = messages ?? [];
  assert.deepEqual(back?.toolCalls, [{ id: "call_a", name: "f", arguments: '{"a": 1}' }]);
});

test("response: prompt logprobs by token id, null before the first, the own token's rank where known", () => {
  const top = [
    { tokenId: 5, token: bytes("a"), logprob: -0.5 },
    { tokenId: 6, token: bytes("b"), logprob: -1 },
  ];
  const logprobs = [
    { tokenId: 6, token: bytes("b"), logprob: -1, top },
    { tokenId: 9, token: bytes("é"), logprob: -4, top },
  ];
  const answer = create(GenerateOnceResponseSchema, { started: { promptLogprobs: logprobs } });
  const list = answer.started?.promptLogprobs ?? [];
  const a = { logprob: -0.5, rank: 1, decoded_token: "a" };
  const b = { logprob: -1, rank: 2, decoded_token: "b" };
  assert.deepEqual(toPromptLogprobs(list), [
    null,
    { 5: a, 6: b },
    { 5: a, 6: b, 9: { logprob: -4, rank: null, decoded_token: "é" } },
  ]);
  const body = toChatCompletion(answer, { ...plain, promptLogprobs: true }, 0);
  assert.equal(body.prompt_logprobs?.length, 3);
});

test("response: what a request asks for is what its answer shows", () => {
  assert.deepEqual(wantedOf({}), plain);
  const all = { tokenIds: true, logprobs: true, promptLogprobs: true };
  assert.deepEqual(wantedOf({ returnTokenIds: true, topLogprobs: 0, promptLogprobs: 0 }), all);
});
