/** OpenAI's response body → GenerateRequest, by way of the chat body. */
import { ServeError } from "../errors.js";
import { asList, asObject, asText, Body, oneOf, quote, type Json } from "./fields.js";
import { readMetadata, toGenerateRequest, type GenerateInput } from "./request.js";
import { inputMessages, placeField, type Placed } from "./responses-input.js";

/** As in a chat body, of which some are not OpenAI's. */
const SAME = [
  "model",
  "temperature",
  "top_p",
  "parallel_tool_calls",
  "metadata",
  "user",
  "seed",
  "top_k",
  "min_p",
  "stop",
  "stop_token_ids",
  "ignore_eos",
  "min_tokens",
  "presence_penalty",
  "frequency_penalty",
  "repetition_penalty",
  "priority",
  "cache_salt",
  "service_tier",
  "stream",
];

const READ_HERE = [
  "input",
  "instructions",
  "max_output_tokens",
  "tools",
  "tool_choice",
  "text",
  "include",
  "top_logprobs",
  "truncation",
  "store",
  "stream_options",
  "prompt_cache_key",
  "safety_identifier",
];
const KNOWN = new Set([...SAME, ...READ_HERE]);

const STORED = "is not served; answers are not stored, send the items themselves";
/** Known and not served; null is as if absent. */
const REFUSED: Record<string, string> = {
  previous_response_id: STORED,
  conversation: STORED,
  background: "is not served; answers are not stored, keep the connection",
  prompt: "is not served; templates are not stored, send the items themselves",
  reasoning: "is not served; the models do not reason apart from their answer",
  max_tool_calls: "is not served; there are no built-in tools",
  context_management: "is not served; send what the model shall see",
};

function checkKeys(json: Json): void {
  for (const key of Object.keys(json)) {
    if (KNOWN.has(key)) continue;
    const reason = Object.hasOwn(REFUSED, key) ? REFUSED[key] : undefined;
    // What changes nothing, said out loud.
    const nothing = json[key] === null || (key === "background" && json[key] === false);
    if (reason !== undefined && nothing) continue;
    throw ServeError.field(
      key,
      reason ?? "is not known or not served by this version",
      "NOT_BUILT",
    );
  }
}

const INCLUDED = ["message.output_text.logprobs", "reasoning.encrypted_content"] as const;

function included(json: Json): string[] {
  const list = asList(json["include"] ?? [], "include");
  return list.map((one, i) => oneOf(one, INCLUDED, `include[${i}]`));
}

function checkUnused(json: Json, body: Body): void {
  if (body.flag("store") === true)
    throw ServeError.field("store", "is true, must be false or left out: answers are not kept");
  oneOf(json["truncation"] ?? "disabled", ["disabled"], "truncation");
  body.text("prompt_cache_key");
  body.text("safety_identifier");
  const options = json["stream_options"];
  if (options === undefined || options === null) return;
  const other = Object.keys(asObject(options, "stream_options")).find(
    (key) => key !== "include_obfuscation",
  );
  if (other !== undefined)
    throw ServeError.field(`stream_options.${other}`, "is not known or not served");
}

function checkType(json: Json, field: string): void {
  const { type } = json;
  if (typeof type === "string" && type !== "function")
    throw ServeError.field(
      `${field}.type`,
      `is ${quote(type)}, must be function; there are no built-in tools`,
      "NOT_BUILT",
    );
  oneOf(type, ["function"], `${field}.type`);
}

function tools(value: unknown): Json[] | undefined {
  if (value === undefined || value === null) return undefined;
  return asList(value, "tools").map((one, i) => {
    const json = asObject(one, `tools[${i}]`);
    checkType(json, `tools[${i}]`);
    const { type, name, description, parameters, strict } = json;
    return { type, function: { name, description, parameters, strict } };
  });
}

function toolChoice(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const json = asObject(value, "tool_choice");
  checkType(json, "tool_choice");
  return { type: "function", function: { name: json["name"] } };
}

const FORMATS = ["text", "json_object", "json_schema"] as const;

function responseFormat(value: unknown): Json | undefined {
  if (value === undefined || value === null) return undefined;
  const json = asObject(value, "text");
  const { format, verbosity, ...rest } = json;
  oneOf(verbosity ?? "medium", ["medium"], "text.verbosity");
  const [other] = Object.keys(rest);
  if (other !== undefined)
    throw ServeError.field(`text.${other}`, "is not known or not served", "NOT_BUILT");
  if (format === undefined || format === null) return undefined;
  const of = asObject(format, "text.format");
  const type = oneOf(of["type"], FORMATS, "text.format.type");
  if (type !== "json_schema") return { type };
  const { name, schema, strict } = of;
  return { type, json_schema: { name, schema, strict } };
}

/** What the chat mapping reads. */
function chatBody(json: Json, placed: Placed[], wantsLogprobs: boolean): Json {
  const same = SAME.flatMap((key) => (key in json ? [[key, json[key]] as const] : []));
  const given = {
    messages: placed.map((one) => one.message),
    max_completion_tokens: json["max_output_tokens"],
    tools: tools(json["tools"]),
    tool_choice: toolChoice(json["tool_choice"]),
    response_format: responseFormat(json["text"]),
  };
  const logprobs = wantsLogprobs ? { logprobs: true, top_logprobs: json["top_logprobs"] } : {};
  const all = { ...Object.fromEntries(same), ...given, ...logprobs };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Of chat bodies and of our messages → of this body. */
const NAMES: [RegExp, string][] = [
  [/^(max_completion_tokens|max_tokens)$/, "max_output_tokens"],
  [/^response_format\.json_schema/, "text.format"],
  [/^response_format/, "text.format"],
  [/^(tools\[\d+\])\.function/, "$1"],
  [/^tool_choice\.function/, "tool_choice"],
];

function renamed(thrown: unknown, placed: Placed[]): unknown {
  if (!(thrown instanceof ServeError) || thrown.violations.length === 0) return thrown;
  const violations = thrown.violations.map(({ field, description }) => ({
    field: NAMES.reduce((name, [from, to]) => name.replace(from, to), placeField(field, placed)),
    description,
  }));
  const said = (list: typeof thrown.violations) =>
    list.map(({ field, description }) => `${field}: ${description}`).join("; ");
  const { code, message, retryDelayMs, quota, metadata } = thrown;
  return new ServeError(code, message === said(thrown.violations) ? said(violations) : message, {
    violations,
    metadata,
    cause: thrown,
    ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
    ...(quota === undefined ? {} : { quota }),
  });
}

/** What an answer repeats of its request. */
export interface ResponseEcho {
  instructions: string | null;
  max_output_tokens: number | null;
  temperature: number | null;
  top_p: number | null;
  tools: unknown[];
  tool_choice: unknown;
  parallel_tool_calls: boolean;
  text: Json;
  metadata: Record<string, string>;
  user: string | null;
  top_logprobs: number;
}

function echoOf(json: Json, body: Body): ResponseEcho {
  const text = (json["text"] ?? {}) as Json;
  return {
    instructions: body.text("instructions") ?? null,
    max_output_tokens: body.whole("max_output_tokens") ?? null,
    temperature: body.number("temperature") ?? null,
    top_p: body.number("top_p") ?? null,
    tools: (json["tools"] ?? []) as unknown[],
    tool_choice: json["tool_choice"] ?? "auto",
    parallel_tool_calls: body.flag("parallel_tool_calls") ?? true,
    text: { format: text["format"] ?? { type: "text" } },
    metadata: readMetadata(json) ?? {},
    user: body.text("user") ?? null,
    top_logprobs: body.whole("top_logprobs") ?? 0,
  };
}

export interface AskedResponse {
  input: GenerateInput;
  echo: ResponseEcho;
  stream: boolean;
  /** An error with its fields named as the client did. */
  renamed(error: unknown): unknown;
}

/** @throws ServeError INVALID_ARGUMENT naming the field; NOT_BUILT for one that is not served. */
export async function toResponseRequest(value: unknown): Promise<AskedResponse> {
  const json = asObject(value, "body");
  checkKeys(json);
  const body = new Body(json);
  checkUnused(json, body);
  if (json["input"] === undefined) throw ServeError.field("input", "is missing");
  const instructions = body.text("instructions");
  const placed = inputMessages(json["input"], instructions);
  if (json["max_output_tokens"] !== undefined) body.whole("max_output_tokens");
  const top = body.whole("top_logprobs");
  const wantsLogprobs = included(json).includes(INCLUDED[0]) || (top ?? 0) > 0;
  try {
    const input = await toGenerateRequest(chatBody(json, placed, wantsLogprobs), { stream: true });
    const echo = echoOf(json, body);
    const stream = body.flag("stream") === true;
    return { input, echo, stream, renamed: (error) => renamed(error, placed) };
  } catch (error) {
    throw renamed(error, placed);
  }
}

/** @throws ServeError INVALID_ARGUMENT; the text of an id is not looked up. */
export function notStored(id: unknown): ServeError {
  return ServeError.field(
    "response_id",
    `no response ${quote(asText(id, "response_id"))}: answers are not stored`,
    "REQUEST_NOT_FOUND",
  );
}
