/** Legacy completions: prompts in, the legacy shape out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  EventSchema,
  FinishReason,
  GenerateOnceResponseSchema,
  type Event,
} from "../gen/tessera/v1/inference_pb.js";
import { TextChunks, toCompletion, toTextCompletion, type TextFormat } from "./completions.js";

const bytes = (text: string) => Buffer.from(text, "utf8");
const PIECES: Record<number, string> = { 1: "Hé", 2: "llo" };
const format: TextFormat = {
  createdSeconds: 5,
  n: 1,
  usage: "none",
  tokenIds: false,
  logprobs: true,
  promptLogprobs: false,
  echo: false,
  tokenBytes: (id) => bytes(PIECES[id] ?? ""),
};
const token = (part: Uint8Array, logprob: number, top: [string, number][] = []) => ({
  token: part,
  logprob,
  top: top.map(([text, value]) => ({ token: bytes(text), logprob: value })),
});

interface Legacy {
  choices: { logprobs: { tokens: string[]; text_offset: number[] } & Record<string, unknown> }[];
}

/** The whole answer of one choice with these tokens. */
function whole(logprobs: object[], more: Partial<TextFormat> = {}, started: object = {}): Legacy {
  const response = create(GenerateOnceResponseSchema, {
    started,
    choices: [{ text: "", logprobs, finished: { reason: FinishReason.STOP } }],
  });
  return toTextCompletion("r", [response], { ...format, ...more }) as Legacy;
}

test("completion: a text, ids, and lists of either are prompts; 16 tokens where none are said", async () => {
  const promptsOf = async (prompt: unknown) => (await toCompletion({ prompt })).prompts;
  assert.deepEqual(await promptsOf("a"), [{ text: "a" }]);
  assert.deepEqual(await promptsOf([1, 2]), [{ tokenIds: [1, 2] }]);
  assert.deepEqual(await promptsOf(["a", "b"]), [{ text: "a" }, { text: "b" }]);
  assert.deepEqual(await promptsOf([[1], "b"]), [{ tokenIds: [1] }, { text: "b" }]);
  const { request } = await toCompletion({ prompt: "a", max_tokens: null });
  assert.equal(request.maxTokens, 16);
  assert.deepEqual(request.messages, []);
  assert.equal((await toCompletion({ prompt: "a", max_tokens: 3 })).request.maxTokens, 3);
});

test("completion: logprobs is a number; with an echo the prompt's are asked for too", async () => {
  const plain = await toCompletion({ prompt: "a", logprobs: 0 });
  assert.equal(plain.request.topLogprobs, 0);
  assert.equal(plain.request.promptLogprobs, undefined);
  const echoed = await toCompletion({ prompt: "a", logprobs: 2, echo: true });
  assert.equal(echoed.request.topLogprobs, 2);
  assert.equal(echoed.request.promptLogprobs, 2);
  await assert.rejects(toCompletion({ prompt: "a", logprobs: true }), /logprobs: is true/);
});

test("legacy logprobs: the token that was taken is among the best, whether it is or not", () => {
  const { choices } = whole([token(bytes("a"), -2, [["b", -1]])]);
  assert.deepEqual(choices[0]?.logprobs, {
    tokens: ["a"],
    token_logprobs: [-2],
    top_logprobs: [{ b: -1, a: -2 }],
    text_offset: [0],
  });
});

test("legacy logprobs: offsets count characters; a part of one begins where the character does", () => {
  const [first, second] = [bytes("€").subarray(0, 1), bytes("€").subarray(1)];
  const { choices } = whole([
    token(bytes("aé"), 0),
    token(first, 0),
    token(second, 0),
    token(bytes("😀"), 0),
    token(bytes("z"), 0),
  ]);
  const { tokens, text_offset: offsets } = choices[0]?.logprobs ?? assert.fail();
  assert.deepEqual(offsets, [0, 2, 2, 3, 4]);
  assert.deepEqual(tokens, ["aé", "bytes:\\xe2", "bytes:\\x82\\xac", "😀", "z"]);
});

test("legacy logprobs: an echo has the prompt's tokens first, the very first without a value", () => {
  const started = { promptTokenIds: [1, 2], promptLogprobs: [token(bytes("llo"), -3)] };
  const { choices } = whole([token(bytes("!"), -1)], { echo: true }, started);
  assert.deepEqual(choices[0]?.logprobs, {
    tokens: ["Hé", "llo", "!"],
    token_logprobs: [null, -3, -1],
    top_logprobs: [null, { llo: -3 }, { "!": -1 }],
    text_offset: [0, 2, 5],
  });
});

const event = (kind: NonNullable<MessageInitShape<typeof EventSchema>["kind"]>): Event =>
  create(EventSchema, { kind });

test("text chunks: pieces of several choices have offsets of their own, an echo's prompt comes once each", () => {
  const chunks = new TextChunks({ id: "r", model: "m" }, { ...format, n: 2, echo: true });
  const started = { promptTokenIds: [1, 2], promptLogprobs: [token(bytes("llo"), -3)] };
  assert.equal(chunks.take(event({ case: "started", value: started })), undefined);
  const piece = (choice: number, text: string) =>
    chunks.take(
      event({ case: "delta", value: { choice, text, logprobs: [token(bytes("ab"), -1)] } }),
    ) as unknown as Legacy;
  const offsets = [piece(0, "Héllo ab"), piece(1, "Hélloab"), piece(0, "ab")].map(
    ({ choices }) => choices[0]?.logprobs.text_offset,
  );
  assert.deepEqual(offsets, [[0, 2, 5], [0, 2, 5], [7]]);
  const end = chunks.take(
    event({ case: "finished", value: { choice: 1, reason: FinishReason.LENGTH } }),
  );
  assert.deepEqual(end?.choices, [{ index: 1, text: "", logprobs: null, finish_reason: "length" }]);
});
