/** Every field's limits: refused by name, a neighbour undisturbed. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { TesseraError, type GenerateInput } from "@tessera/client";
import { GRPC_STATUS, type ServeErrorCode } from "@tessera/proto";
import { ImageDetail, Role, ToolMode } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

const { client, stop } = await serve(1, { flags: { maxSequences: 4 } });
after(stop);
const png = await readFile(root("models/documents/document-01.png"));
const webp = await readFile(root("models/documents/document-09.webp"));

type Sampling = NonNullable<GenerateInput["sampling"]>;
const say = (value: string) => ({ content: { case: "text" as const, value } });
const show = (data: Uint8Array, extra: object = {}) => ({
  content: { case: "image" as const, value: { data, ...extra } },
});
const user = (...parts: (ReturnType<typeof say> | ReturnType<typeof show>)[]) => [
  { role: Role.USER, parts },
];
const good: GenerateInput = { messages: user(show(png), say("Read the text.")), maxTokens: 4 };
const sampling = (change: Sampling): GenerateInput => ({ ...good, sampling: change });
const picture = (data: Uint8Array, extra: object = {}): GenerateInput => ({
  ...good,
  messages: user(show(data, extra)),
});

/** A PNG header that claims a size. */
function claim(width: number, height: number): Uint8Array {
  const bytes = Buffer.from(png);
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  return bytes;
}

type BadRow = [name: string, request: GenerateInput, field: string, message: RegExp];
const IMAGE = "messages[0].parts[0].image";

const invalid: BadRow[] = [
  [
    "temperature ∞",
    sampling({ temperature: Infinity }),
    "sampling.temperature",
    /is Infinity.*100/,
  ],
  ["temperature 10⁻³⁰", sampling({ temperature: 1e-30 }), "sampling.temperature", /0\.000001…100/],
  ["top_p NaN", sampling({ topP: NaN }), "sampling.top_p", /is NaN, must be above 0/],
  ["min_p −0.1", sampling({ minP: -0.1 }), "sampling.min_p", /is -0\.1\d*, must be 0…1/],
  ["min_p NaN", sampling({ minP: NaN }), "sampling.min_p", /is NaN, must be 0…1/],
  [
    "repetition_penalty 0",
    sampling({ repetitionPenalty: 0 }),
    "sampling.repetition_penalty",
    /is 0/,
  ],
  [
    "repetition_penalty NaN",
    sampling({ repetitionPenalty: NaN }),
    "sampling.repetition_penalty",
    /NaN/,
  ],
  [
    "presence_penalty 3",
    sampling({ presencePenalty: 3 }),
    "sampling.presence_penalty",
    /is 3.*-2…2/,
  ],
  [
    "frequency_penalty −3",
    sampling({ frequencyPenalty: -3 }),
    "sampling.frequency_penalty",
    /is -3/,
  ],
  ["a bias of 101", sampling({ logitBias: { 5: 101 } }), "sampling.logit_bias[5]", /101.*-100…100/],
  ["a bias of NaN", sampling({ logitBias: { 5: NaN } }), "sampling.logit_bias[5]", /is NaN/],
  [
    "an allowed id out of vocabulary",
    sampling({ allowedTokenIds: [9999] }),
    "sampling.allowed_token_ids",
    /have 9999/,
  ],
  [
    "8193 allowed ids",
    sampling({ allowedTokenIds: Array<number>(8193).fill(5) }),
    "sampling.allowed_token_ids",
    /have 8193 entries, limit 8192/,
  ],
  [
    "1025 biases",
    sampling({ logitBias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1])) }),
    "sampling.logit_bias",
    /have 1025 entries, limit 1024/,
  ],
  [
    "65 bad words",
    sampling({ badWords: Array<string>(65).fill("a") }),
    "sampling.bad_words",
    /65 entries, limit 64/,
  ],
  [
    "an empty bad word",
    sampling({ badWords: ["a", " "] }),
    "sampling.bad_words[1]",
    /0 characters/,
  ],
  ["an empty stop", { ...good, stop: { texts: [""] } }, "stop.texts[0]", /0 characters.*1…256/],
  [
    "a stop of 257",
    { ...good, stop: { texts: ["a".repeat(257)] } },
    "stop.texts[0]",
    /257 characters/,
  ],
  [
    "65 stop ids",
    { ...good, stop: { tokenIds: Array<number>(65).fill(5) } },
    "stop.token_ids",
    /65 entries, limit 64/,
  ],
  [
    "a stop id out of vocabulary",
    { ...good, stop: { tokenIds: [77777] } },
    "stop.token_ids",
    /77777/,
  ],
  ["top_logprobs 21", { ...good, topLogprobs: 21 }, "top_logprobs", /is 21, must be 0…20/],
  ["min_tokens above max_tokens", { ...good, minTokens: 5 }, "min_tokens", /is 5, must be 0…4/],
  ["more choices than run together", { ...good, n: 5 }, "n", /is 5, must be 1…4/],
  ["a request id of 65", { ...good, requestId: "a".repeat(65) }, "request_id", /1…64 of/],
  ["an empty request id", { ...good, requestId: "" }, "request_id", /is "", must be/],
  [
    "no tile",
    picture(png, { options: { maxTiles: 0 } }),
    `${IMAGE}.options.max_tiles`,
    /is 0.*1…12/,
  ],
  ["13 tiles", picture(png, { options: { maxTiles: 13 } }), `${IMAGE}.options.max_tiles`, /is 13/],
  [
    "6 tiles beside detail low",
    picture(png, { options: { maxTiles: 6, detail: ImageDetail.LOW } }),
    `${IMAGE}.options.max_tiles`,
    /is 6 beside detail low, which has 1/,
  ],
  [
    "a detail that there is not",
    picture(png, { options: { detail: 9 } }),
    `${IMAGE}.options.detail`,
    /is 9, must be auto, low or high/,
  ],
  [
    "an empty part",
    { messages: [{ role: Role.USER, parts: [{}] }] },
    "messages[0].parts[0]",
    /is empty/,
  ],
  ["no role", { messages: [{ parts: [say("a")] }] }, "messages[0].role", /is 0, must be system/],
  [
    "a system message behind another",
    { messages: [...user(say("a")), { role: Role.SYSTEM, parts: [say("b")] }] },
    "messages[1].role",
    /only the first/,
  ],
  [
    "a picture of the assistant",
    { messages: [{ role: Role.ASSISTANT, parts: [show(png)] }] },
    IMAGE,
    /not in a message of role user/,
  ],
  ["messages and token ids", { ...good, tokenIds: [5] }, "token_ids", /beside messages/],
];

const pictures: BadRow[] = [
  ["a cut PNG", picture(png.subarray(0, png.length / 2)), `${IMAGE}.data`, /cannot be decoded/],
  ["a cut WebP", picture(webp.subarray(0, webp.length / 2)), `${IMAGE}.data`, /cannot be decoded/],
  ["0 × 7", picture(claim(0, 7)), `${IMAGE}.data`, /is 0 × 7 pixels/],
  [
    "16384 × 16384",
    picture(claim(16384, 16384)),
    `${IMAGE}.data`,
    /268435456 pixels, limit 67108864/,
  ],
  ["a header alone", picture(png.subarray(0, 33)), `${IMAGE}.data`, /cannot be decoded/],
  [
    "a type that is none",
    picture(png, { mediaType: "text/html" }),
    `${IMAGE}.data`,
    /"text\/html"/,
  ],
  [
    "a type of a million characters",
    picture(png, { mediaType: "x".repeat(1e6) }),
    `${IMAGE}.data`,
    /declared as "xxx.* … \(\d+ characters\)/,
  ],
];

const long = (count: number) => Array<number>(count).fill(65);
const contexts: BadRow[] = [
  ["a prompt as long as the context", { tokenIds: long(4096) }, "max_tokens", /4096 tokens and 1/],
  [
    "more to make than is left",
    { tokenIds: long(4000), maxTokens: 97 },
    "max_tokens",
    /prompt of 4000 tokens and 97 to make, the context has 4096/,
  ],
];

const tool = { name: "f", description: "" };
const calls = [{ id: "c", name: "f", arguments: "{}" }];
const tools: BadRow[] = [
  [
    "an empty constraint",
    { ...good, constraint: { kind: { case: "regex", value: "" } } },
    "constraint.regex",
    /has 0 bytes, must have 1…65536/,
  ],
  ["a tool of no name", { ...good, tools: [{ ...tool, name: "" }] }, "tools[0].name", /is ""/],
  ["two tools of one name", { ...good, tools: [tool, tool] }, "tools[1].name", /there twice/],
  [
    "required calls without tools",
    { ...good, toolChoice: { kind: { case: "mode", value: ToolMode.REQUIRED } } },
    "tool_choice",
    /is required, and there are no tools/,
  ],
  [
    "a tool that is not there",
    { ...good, tools: [tool], toolChoice: { kind: { case: "name", value: "g" } } },
    "tool_choice",
    /is "g", which is none of the 1 tools/,
  ],
  ["prompt logprobs 21", { ...good, promptLogprobs: 21 }, "prompt_logprobs", /is 21, must be 0…20/],
  ["an empty salt", { ...good, cacheSalt: "" }, "cache_salt", /has 0 characters/],
  [
    "a result that answers nothing",
    { messages: [{ role: Role.TOOL, parts: [say("1")], toolCallId: "c" }] },
    "messages[0].tool_call_id",
    /is "c", which no earlier call/,
  ],
  [
    "a tool call id of a user",
    { messages: [{ role: Role.USER, parts: [say("1")], toolCallId: "c" }] },
    "messages[0].tool_call_id",
    /not of role tool/,
  ],
  [
    "calls of a user",
    { messages: [{ role: Role.USER, toolCalls: calls }] },
    "messages[0].tool_calls",
    /of role user, must be of assistant/,
  ],
  [
    "a user's message gone on with",
    { ...good, continueFinalMessage: true },
    "continue_final_message",
    /is not the assistant's/,
  ],
];

const models: BadRow[] = [
  [
    "a model name of a million characters",
    { ...good, model: "m".repeat(1e6) },
    "model",
    /served is|characters/,
  ],
];

const sections: [ServeErrorCode, BadRow[]][] = [
  ["INVALID_ARGUMENT", [...invalid, ...tools]],
  ["INVALID_IMAGE", pictures],
  ["CONTEXT_TOO_LONG", contexts],
  ["MODEL_NOT_FOUND", models],
];

const neighbour = { ...good, maxTokens: 60, minTokens: 60 };
const undisturbed = essence(await client.generateOnce(neighbour));

test("bad fields: a neighbour's answer is the same while all of it is refused", async () => {
  const answer = client.generateOnce(neighbour);
  const requests = sections.flatMap(([, rows]) => rows.map(([, request]) => request));
  const outcomes = await Promise.allSettled(requests.map((one) => client.generateOnce(one)));
  assert.ok(outcomes.every(({ status }) => status === "rejected"));
  assert.deepEqual(essence(await answer), undisturbed);
});

for (const [code, rows] of sections)
  for (const [name, request, field, message] of rows)
    test(`bad fields: ${name} is ${code}`, async () => {
      const error = await client.generateOnce(request).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof TesseraError, String(error));
      assert.deepEqual([error.code, error.grpcStatus], [code, GRPC_STATUS[code]], error.message);
      assert.equal(error.violations[0]?.field, field);
      assert.match(error.message, message);
    });

test("bad fields: every violation is reported at once", async () => {
  const many = { ...sampling({ topP: 2, minP: 2 }), n: 0, topLogprobs: 99 };
  const error = await client.generateOnce(many).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof TesseraError);
  assert.deepEqual(error.violations.map(({ field }) => field).sort(), [
    "n",
    "sampling.min_p",
    "sampling.top_p",
    "top_logprobs",
  ]);
});

test("bad fields: five thousand violations come back as a refusal too", async () => {
  const bias = Object.fromEntries(Array.from({ length: 900 }, (_, id) => [id, 1e6]));
  const request = {
    ...sampling({ logitBias: bias }),
    stop: { texts: Array<string>(5000).fill("") },
  };
  const error = await client.generateOnce(request).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof TesseraError);
  assert.equal(error.code, "INVALID_ARGUMENT", error.message.slice(0, 300));
  assert.equal(error.violations.length, 16);
});

test("at the edge: one token behind a prompt of 4095, a picture of the largest aspect", async () => {
  const full = await client.generateOnce({ tokenIds: long(4095), maxTokens: 1, minTokens: 1 });
  assert.equal(full.usage?.completionTokens, 1);
  const rest = await client.generateOnce({ tokenIds: long(4090), stop: { ignoreEos: true } });
  assert.equal(rest.usage?.completionTokens, 6);
});

test("at the edge: as many choices as run together", async () => {
  const { choices } = await client.generateOnce({ ...good, n: 4 });
  assert.equal(choices.length, 4);
});
