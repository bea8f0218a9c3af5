import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ServeError } from "../errors.js";
import { ImageDetail, Role } from "../gen/tessera/v1/inference_pb.js";
import { toGenerateRequest } from "./request.js";

const messages = [{ role: "user", content: "Hello" }];
const picture = `data:image/png;base64,${Buffer.from("bytes").toString("base64")}`;
const ask = (url: unknown) => [
  { role: "user", content: [{ type: "image_url", image_url: { url } }] },
];

const everything = {
  model: "m",
  messages: [
    { role: "system", content: "Be brief." },
    { role: "user", content: [...(ask(picture)[0]?.content ?? []), { type: "text", text: "?" }] },
    { role: "assistant", content: "yes" },
  ],
  max_completion_tokens: 7,
  max_tokens: 9,
  min_tokens: 2,
  n: 3,
  stop: ["a", "b"],
  stop_token_ids: [5],
  ignore_eos: true,
  seed: 42,
  temperature: 0.5,
  top_p: 0.9,
  top_k: 4,
  min_p: 0.1,
  repetition_penalty: 1.1,
  presence_penalty: -1,
  frequency_penalty: 1,
  logit_bias: { "7": -3 },
  logprobs: true,
  top_logprobs: 2,
  return_token_ids: true,
  skip_special_tokens: false,
  include_stop_str_in_output: true,
  bad_words: ["x"],
  allowed_token_ids: [1, 2],
  priority: -1,
  user: "someone",
  metadata: { a: "b" },
  stream: false,
  stream_options: null,
  prompt_logprobs: 3,
  guided_regex: "a+",
  parallel_tool_calls: false,
  echo: true,
  continue_final_message: true,
  add_generation_prompt: false,
  cache_salt: "s",
  resume: true,
  request_id: "r-1",
  store: false,
  service_tier: "default",
  modalities: ["text"],
  best_of: null,
};

const asRequest = {
  model: "m",
  messages: [
    { role: Role.SYSTEM, parts: [{ content: { case: "text", value: "Be brief." } }] },
    {
      role: Role.USER,
      parts: [
        {
          content: {
            case: "image",
            value: { data: Buffer.from("bytes"), mediaType: "image/png" },
          },
        },
        { content: { case: "text", value: "?" } },
      ],
    },
    { role: Role.ASSISTANT, parts: [{ content: { case: "text", value: "yes" } }] },
  ],
  maxTokens: 7,
  minTokens: 2,
  n: 3,
  priority: -1,
  returnTokenIds: true,
  skipSpecialTokens: false,
  includeStopText: true,
  topLogprobs: 2,
  promptLogprobs: 3,
  constraint: { kind: { case: "regex", value: "a+" } },
  parallelToolCalls: false,
  echo: true,
  continueFinalMessage: true,
  cacheSalt: "s",
  resume: true,
  requestId: "r-1",
  metadata: { a: "b" },
  stop: { texts: ["a", "b"], tokenIds: [5], ignoreEos: true },
  sampling: {
    temperature: 0.5,
    topP: 0.9,
    topK: 4,
    minP: 0.1,
    seed: 42n,
    repetitionPenalty: 1.1,
    presencePenalty: -1,
    frequencyPenalty: 1,
    logitBias: { 7: -3 },
    allowedTokenIds: [1, 2],
    badWords: ["x"],
  },
};

test("a body with everything becomes the request", async () => {
  assert.deepEqual(await toGenerateRequest(everything), asRequest);
});

test("what is absent or null stays unset; a stop may be one text", async () => {
  const got = await toGenerateRequest({ messages, temperature: null, stop: "x", logprobs: false });
  assert.deepEqual(got, {
    model: "",
    messages: [{ role: Role.USER, parts: [{ content: { case: "text", value: "Hello" } }] }],
    stop: { texts: ["x"], tokenIds: [] },
    sampling: { logitBias: {}, allowedTokenIds: [], badWords: [] },
  });
});

test("file: URLs are read by the caller's reader only", async () => {
  const asked: string[] = [];
  const read = (path: string) => {
    asked.push(path);
    return Promise.resolve(Uint8Array.of(1));
  };
  await toGenerateRequest({ messages: ask("file:a/b.png") }, { readFile: read });
  assert.deepEqual(asked, ["a/b.png"]);
  await assert.rejects(toGenerateRequest({ messages: ask("file:a/b.png") }), /must be a data URL/);
});

const refused: [string, unknown, string, RegExp][] = [
  ["no object", null, "body", /must be an object/],
  ["a list", [], "body", /must be an object/],
  ["a text", "hi", "body", /must be an object/],
  ["no messages", {}, "messages", /must be a list/],
  ["messages as text", { messages: "hi" }, "messages", /must be a list/],
  ["a message that is null", { messages: [null] }, "messages[0]", /must be an object/],
  ["a message that is a text", { messages: ["hi"] }, "messages[0]", /must be an object/],
  ["no role", { messages: [{ content: "a" }] }, "messages[0].role", /is undefined/],
  ["an unknown role", { messages: [{ role: "x", content: "" }] }, "messages[0].role", /"x"/],
  ["a role of Object", { messages: [{ role: "toString" }] }, "messages[0].role", /"toString"/],
  ["no content", { messages: [{ role: "user" }] }, "messages[0].content", /text or a list/],
  ["content 7", { messages: [{ role: "user", content: 7 }] }, "messages[0].content", /text or/],
  [
    "a part that is null",
    { messages: [{ role: "user", content: [null] }] },
    "messages[0].content[0]",
    /must be an object/,
  ],
  [
    "an unknown part",
    { messages: [{ role: "user", content: [{ type: "audio" }] }] },
    "messages[0].content[0].type",
    /is "audio", must be text or image_url/,
  ],
  [
    "a text part without text",
    { messages: [{ role: "user", content: [{ type: "text" }] }] },
    "messages[0].content[0].text",
    /must be a string/,
  ],
  ["a number as URL", { messages: ask(7) }, "messages[0].content[0].image_url.url", /text/],
  ["no URL", { messages: ask(undefined) }, "messages[0].content[0].image_url.url", /text/],
  [
    "image_url null",
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: null }] }] },
    "messages[0].content[0].image_url",
    /must be/,
  ],
  ["a web URL", { messages: ask("https://x/y") }, "messages[0].content[0].image_url.url", /never/],
  [
    "a data URL that is not base64",
    { messages: ask("data:image/png,abc") },
    "messages[0].content[0].image_url.url",
    /must be a data URL in base64/,
  ],
  [
    "broken base64",
    { messages: ask("data:image/png;base64,ab*d") },
    "messages[0].content[0].image_url.url",
    /no base64/,
  ],
  ["an unknown key", { messages, tempertaure: 1 }, "tempertaure", /is not known/],
  ["a stream", { messages, stream: true }, "stream", /must be false/],
  ["model 7", { messages, model: 7 }, "model", /is 7, must be a text/],
  ["temperature as text", { messages, temperature: "1" }, "temperature", /is "1", must be/],
  ["max_tokens 1.5", { messages, max_tokens: 1.5 }, "max_tokens", /is 1.5, must be a whole/],
  ["max_tokens -1", { messages, max_tokens: -1 }, "max_tokens", /is -1, must be a whole/],
  ["max_tokens 2³²", { messages, max_tokens: 2 ** 32 }, "max_tokens", /is 4294967296/],
  ["n as text", { messages, n: "2" }, "n", /is "2"/],
  ["seed 1.5", { messages, seed: 1.5 }, "seed", /is 1.5, must be a whole number/],
  ["seed as text", { messages, seed: "1" }, "seed", /is "1"/],
  ["priority 1.5", { messages, priority: 1.5 }, "priority", /is 1.5, must be a whole number/],
  ["priority 2⁴⁰", { messages, priority: 2 ** 40 }, "priority", /must be a whole number/],
  ["logprobs 5", { messages, logprobs: 5 }, "logprobs", /is 5, must be true or false/],
  [
    "top_logprobs without logprobs",
    { messages, top_logprobs: 5 },
    "top_logprobs",
    /needs logprobs: true/,
  ],
  ["stop 7", { messages, stop: 7 }, "stop", /is 7, must be a text or a list/],
  ["stop [7]", { messages, stop: [7] }, "stop", /must be a text or a list of texts/],
  ["stop_token_ids text", { messages, stop_token_ids: "1" }, "stop_token_ids", /token ids/],
  ["a negative id", { messages, allowed_token_ids: [-1] }, "allowed_token_ids", /token ids/],
  ["an id of 2³²", { messages, stop_token_ids: [2 ** 32] }, "stop_token_ids", /token ids/],
  ["logit_bias list", { messages, logit_bias: [1] }, "logit_bias", /must be an object/],
  ["logit_bias text", { messages, logit_bias: "x" }, "logit_bias", /must be an object/],
  ["a bias id that is no id", { messages, logit_bias: { a: 1 } }, "logit_bias", /"a"/],
  ["a bias id of -1", { messages, logit_bias: { "-1": 1 } }, "logit_bias", /"-1"/],
  ["a bias that is no number", { messages, logit_bias: { 5: "x" } }, "logit_bias", /5 is "x"/],
  ["return_token_ids 1", { messages, return_token_ids: 1 }, "return_token_ids", /true or false/],
];
for (const [name, body, field, message] of refused)
  test(`body: ${name} is refused by name`, async () => {
    const error = await toGenerateRequest(body).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof ServeError, String(error));
    assert.equal(error.violations[0]?.field, field);
    assert.match(error.message, message);
  });

test("body: any JSON is taken or refused, never anything else", async () => {
  const key = fc.constantFrom("messages", "model", "stop", "n", "seed", "logit_bias", "top_p");
  const part = fc.record({ type: fc.constantFrom("text", "image_url"), text: fc.jsonValue() });
  const message = fc.record(
    {
      role: fc.constantFrom("user", "system", 7, null),
      content: fc.oneof(fc.jsonValue(), fc.array(part)),
    },
    { requiredKeys: [] },
  );
  const body = fc
    .tuple(fc.dictionary(key, fc.jsonValue()), fc.array(fc.oneof(message, fc.jsonValue())))
    .map(([rest, list]) => ({ messages: list, ...rest }));
  await fc.assert(
    fc.asyncProperty(fc.oneof(body, fc.jsonValue()), async (value) => {
      const outcome = await toGenerateRequest(value).catch((error: unknown) => error);
      assert.ok(!(outcome instanceof Error) || outcome instanceof ServeError, String(outcome));
    }),
    { numRuns: 2000 },
  );
});

const withOptions = (options: object) => [
  { role: "user", content: [{ type: "image_url", image_url: { url: picture, ...options } }] },
];

test("image_url: detail and max_tiles become the image's options", async () => {
  const optionsOf = async (options: object) => {
    const { messages: got } = await toGenerateRequest({ messages: withOptions(options) });
    const content = got?.[0]?.parts?.[0]?.content;
    return content?.case === "image" ? content.value?.options : assert.fail("no image");
  };
  assert.equal(await optionsOf({}), undefined);
  assert.deepEqual(await optionsOf({ detail: "low" }), { detail: ImageDetail.LOW });
  assert.deepEqual(await optionsOf({ detail: "high", max_tiles: 12 }), {
    detail: ImageDetail.HIGH,
    maxTiles: 12,
  });
});

const badOptions: [options: object, message: RegExp][] = [
  [{ detail: "medium" }, /image_url\.detail: is "medium", must be auto, low or high/],
  [{ detail: "toString" }, /image_url\.detail: is "toString"/],
  [{ max_tiles: "6" }, /image_url\.max_tiles: is "6", must be a whole number/],
  [{ max_tiles: 1.5 }, /image_url\.max_tiles: is 1\.5, must be a whole number/],
  [{ max_tiles: -1 }, /image_url\.max_tiles: is -1, must be a whole number/],
];
for (const [options, message] of badOptions)
  test(`image_url: ${JSON.stringify(options)} is refused by name and value`, async () => {
    await assert.rejects(toGenerateRequest({ messages: withOptions(options) }), {
      code: "INVALID_ARGUMENT",
      message,
    });
  });
