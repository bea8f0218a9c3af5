/** OpenAI's chat completion body → GenerateRequest. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ServeError } from "../errors.js";
import type { GenerateRequest, GenerateRequestSchema } from "../gen/tessera/v1/inference_pb.js";
import { constraint, CONSTRAINT_KEYS } from "./constraint.js";
import { asList, asObject, Body, defined, oneOf, quote, type Json } from "./fields.js";
import { messages, type ReadFile } from "./messages.js";
import { toolChoice, tools } from "./tools.js";

export type { ReadFile } from "./messages.js";

/** Plain objects of GenerateRequest's fields; all are optional. */
export type GenerateInput = Exclude<
  MessageInitShape<typeof GenerateRequestSchema>,
  GenerateRequest
>;

const KNOWN = new Set([
  ...CONSTRAINT_KEYS,
  "model",
  "messages",
  "max_tokens",
  "max_completion_tokens",
  "min_tokens",
  "n",
  "stop",
  "seed",
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
  "logit_bias",
  "logprobs",
  "top_logprobs",
  "prompt_logprobs",
  "return_token_ids",
  "user",
  "metadata",
  "ignore_eos",
  "stop_token_ids",
  "priority",
  "stream",
  "stream_options",
  "skip_special_tokens",
  "include_stop_str_in_output",
  "bad_words",
  "allowed_token_ids",
  "tools",
  "tool_choice",
  "parallel_tool_calls",
  "echo",
  "add_generation_prompt",
  "continue_final_message",
  "cache_salt",
  "resume",
  "request_id",
  "store",
  "service_tier",
  "modalities",
]);

/** Known and not served, whatever their value. */
const REFUSED: Record<string, string> = {
  functions: "is deprecated and not served; use tools",
  function_call: "is deprecated and not served; use tool_choice",
  audio: "is not served; answers are text",
  best_of: "is not served; ask for n choices with logprobs and choose",
  suffix: "is not served; the models do not fill in",
};

function checkKeys(json: Json): void {
  for (const key of Object.keys(json)) {
    if (KNOWN.has(key)) continue;
    const reason = Object.hasOwn(REFUSED, key) ? REFUSED[key] : undefined;
    if (reason !== undefined && json[key] === null) continue;
    throw ServeError.field(
      key,
      reason ?? "is not known or not served by this version",
      "NOT_BUILT",
    );
  }
}

/** Fields that are taken with the values that change nothing. */
function checkUnused(json: Json, body: Body): void {
  body.text("user");
  if (body.flag("store") === true)
    throw ServeError.field("store", "is true, must be false: answers are not kept");
  const tier = json["service_tier"] ?? "auto";
  oneOf(tier, ["auto", "default"], "service_tier");
  const modalities = asList(json["modalities"] ?? ["text"], "modalities");
  const other = modalities.find((one) => one !== "text");
  if (other !== undefined || modalities.length === 0)
    throw ServeError.field("modalities", `have ${quote(other)}, must be ["text"]`);
}

/** The last one is vLLM's. */
const STREAM_OPTIONS = ["include_usage", "include_obfuscation", "continuous_usage_stats"];

function checkStream(json: Json, body: Body, canStream: boolean): void {
  const stream = body.flag("stream") === true;
  if (stream && !canStream)
    throw ServeError.field("stream", "is true, must be false where answers come whole");
  const options = json["stream_options"];
  if (options === undefined || options === null) return;
  if (!stream) throw ServeError.field("stream_options", "are given without stream: true");
  const field = "stream_options";
  for (const [key, value] of Object.entries(asObject(options, field))) {
    if (!STREAM_OPTIONS.includes(key))
      throw ServeError.field(`${field}.${key}`, "is not known or not served by this version");
    if (typeof value !== "boolean" && value !== null)
      throw ServeError.field(`${field}.${key}`, `is ${quote(value)}, must be true or false`);
  }
}

/** As vLLM: an answer is opened, or the last message is gone on with; one of the two. */
function continues(body: Body): boolean | undefined {
  const goesOn = body.flag("continue_final_message");
  const opened = body.flag("add_generation_prompt");
  const field = "add_generation_prompt";
  if (opened === true && goesOn === true)
    throw ServeError.field(field, "is true beside continue_final_message: true");
  if (opened === false && goesOn !== true)
    throw ServeError.field(field, "is false, which needs continue_final_message: true");
  return goesOn;
}

/** @throws ServeError INVALID_ARGUMENT when it is no object of texts */
export function readMetadata(json: Json): Record<string, string> | undefined {
  const value = json["metadata"];
  if (value === undefined || value === null) return undefined;
  const entries = Object.entries(asObject(value, "metadata"));
  for (const [key, text] of entries)
    if (typeof text !== "string")
      throw ServeError.field("metadata", `${quote(key)} is ${quote(text)}, must be a text`);
  return value as Record<string, string>;
}

function logprobs(body: Body): number | undefined {
  const top = body.whole("top_logprobs");
  if (body.flag("logprobs") === true) return top ?? 0;
  if (top !== undefined && top > 0)
    throw ServeError.field("top_logprobs", `is ${top}, which needs logprobs: true`);
  return undefined;
}

function logitBias(json: Json): Record<number, number> {
  const value = asObject(json["logit_bias"] ?? {}, "logit_bias");
  for (const [id, bias] of Object.entries(value)) {
    if (!/^\d{1,10}$/.test(id) || Number(id) >= 2 ** 32)
      throw ServeError.field("logit_bias", `has ${JSON.stringify(id)}, must have token ids`);
    if (typeof bias !== "number")
      throw ServeError.field("logit_bias", `${id} is ${JSON.stringify(bias)}, must be a number`);
  }
  return value as Record<number, number>;
}

function sampling(json: Json, body: Body) {
  const seed = body.integer("seed");
  const numbers = defined({
    temperature: body.number("temperature"),
    topP: body.number("top_p"),
    topK: body.whole("top_k"),
    minP: body.number("min_p"),
    seed: seed === undefined ? undefined : BigInt.asUintN(64, BigInt(seed)),
    repetitionPenalty: body.number("repetition_penalty"),
    presencePenalty: body.number("presence_penalty"),
    frequencyPenalty: body.number("frequency_penalty"),
  });
  return {
    ...numbers,
    logitBias: logitBias(json),
    allowedTokenIds: body.ids("allowed_token_ids"),
    badWords: body.texts("bad_words"),
  };
}

export interface RequestOptions {
  /** Where `file:` URLs are allowed. */
  readFile?: ReadFile;
  /** The caller can stream: `stream: true` is taken. */
  stream?: boolean;
}

/** @throws ServeError INVALID_ARGUMENT naming the field; NOT_BUILT for one that is not served. */
export async function toGenerateRequest(
  value: unknown,
  options: RequestOptions = {},
): Promise<GenerateInput> {
  const json = asObject(value, "body");
  checkKeys(json);
  const body = new Body(json);
  checkUnused(json, body);
  checkStream(json, body, options.stream === true);
  return defined({
    model: body.text("model") ?? "",
    requestId: body.text("request_id"),
    messages: await messages(json["messages"], options.readFile),
    maxTokens: body.whole("max_completion_tokens") ?? body.whole("max_tokens"),
    minTokens: body.whole("min_tokens"),
    n: body.whole("n"),
    priority: body.int32("priority"),
    returnTokenIds: body.flag("return_token_ids"),
    skipSpecialTokens: body.flag("skip_special_tokens"),
    includeStopText: body.flag("include_stop_str_in_output"),
    topLogprobs: logprobs(body),
    promptLogprobs: body.whole("prompt_logprobs"),
    stop: defined({
      texts: body.texts("stop"),
      tokenIds: body.ids("stop_token_ids"),
      ignoreEos: body.flag("ignore_eos"),
    }),
    sampling: sampling(json, body),
    constraint: constraint(json),
    tools: tools(json["tools"]),
    toolChoice: toolChoice(json["tool_choice"]),
    parallelToolCalls: body.flag("parallel_tool_calls"),
    echo: body.flag("echo"),
    continueFinalMessage: continues(body),
    cacheSalt: body.text("cache_salt"),
    resume: body.flag("resume"),
    metadata: readMetadata(json),
  });
}
