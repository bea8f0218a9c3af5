/** OpenAI's chat completion body → GenerateRequest. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ServeError } from "../errors.js";
import {
  ImageDetail,
  Role,
  type GenerateRequest,
  type GenerateRequestSchema,
} from "../gen/tessera/v1/inference_pb.js";

/** Plain objects of GenerateRequest's fields; all are optional. */
export type GenerateInput = Exclude<
  MessageInitShape<typeof GenerateRequestSchema>,
  GenerateRequest
>;

type Json = Record<string, unknown>;
/** Reads what a `file:` URL names. */
export type ReadFile = (path: string) => Promise<Uint8Array>;

const ROLES: Record<string, Role> = {
  system: Role.SYSTEM,
  developer: Role.SYSTEM,
  user: Role.USER,
  assistant: Role.ASSISTANT,
};
const KNOWN = new Set([
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
  "return_token_ids",
  "user",
  "metadata",
  "ignore_eos",
  "stop_token_ids",
  "priority",
  "stream",
  "skip_special_tokens",
  "include_stop_str_in_output",
  "bad_words",
  "allowed_token_ids",
]);

function asObject(value: unknown, field: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw ServeError.field(field, "must be an object");
  return value as Json;
}

/** @throws ServeError INVALID_ARGUMENT; Buffer.from would pass over what is no base64. */
function fromBase64(text: string, field: string): Buffer {
  const data = Buffer.from(text, "base64");
  const digits = text.replace(/=+$/, "").length;
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || data.length !== Math.floor((digits * 3) / 4))
    throw ServeError.field(field, "is no base64 behind its comma");
  return data;
}

async function imagePart(url: unknown, field: string, readFile: ReadFile | undefined) {
  if (typeof url !== "string") throw ServeError.field(field, "must be a text");
  const head = /^data:([^;,]*);base64,/.exec(url);
  if (head !== null)
    return { data: fromBase64(url.slice(head[0].length), field), mediaType: head[1] ?? "" };
  if (url.startsWith("file:") && readFile !== undefined) {
    try {
      return { data: await readFile(url.slice(5)), mediaType: "" };
    } catch (cause) {
      throw ServeError.field(
        field,
        `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      );
    }
  }
  throw ServeError.field(
    field,
    "must be a data URL in base64; pictures are never fetched from the network",
  );
}

const DETAILS: Record<string, ImageDetail> = {
  auto: ImageDetail.AUTO,
  low: ImageDetail.LOW,
  high: ImageDetail.HIGH,
};

/** `detail` is OpenAI's, `max_tiles` our own. */
function imageOptions(json: Json, field: string) {
  const { detail, max_tiles: maxTiles } = json;
  const known =
    typeof detail === "string" && Object.hasOwn(DETAILS, detail) ? DETAILS[detail] : undefined;
  if (detail !== undefined && known === undefined)
    throw ServeError.field(
      `${field}.detail`,
      `is ${JSON.stringify(detail)}, must be auto, low or high`,
    );
  if (maxTiles !== undefined && !(Number.isSafeInteger(maxTiles) && Number(maxTiles) >= 0))
    throw ServeError.field(
      `${field}.max_tiles`,
      `is ${JSON.stringify(maxTiles)}, must be a whole number`,
    );
  if (known === undefined && maxTiles === undefined) return {};
  const tiles = maxTiles === undefined ? {} : { maxTiles: Number(maxTiles) };
  return { options: { ...tiles, ...(known === undefined ? {} : { detail: known }) } };
}

async function parts(content: unknown, field: string, readFile: ReadFile | undefined) {
  if (typeof content === "string") return [{ content: { case: "text" as const, value: content } }];
  if (!Array.isArray(content)) throw ServeError.field(field, "must be a text or a list of parts");
  return Promise.all(
    content.map(async (part: unknown, i) => {
      const at = `${field}[${i}]`;
      const json = asObject(part, at);
      if (json["type"] === "text") {
        const { text } = json;
        if (typeof text !== "string") throw ServeError.field(`${at}.text`, "must be a string");
        return { content: { case: "text" as const, value: text } };
      }
      if (json["type"] !== "image_url")
        throw ServeError.field(
          `${at}.type`,
          `is ${JSON.stringify(json["type"])}, must be text or image_url`,
        );
      const image = asObject(json["image_url"], `${at}.image_url`);
      const value = {
        ...(await imagePart(image["url"], `${at}.image_url.url`, readFile)),
        ...imageOptions(image, `${at}.image_url`),
      };
      return { content: { case: "image" as const, value } };
    }),
  );
}

async function messages(value: unknown, readFile: ReadFile | undefined) {
  if (!Array.isArray(value)) throw ServeError.field("messages", "must be a list");
  return Promise.all(
    value.map(async (message: unknown, i) => {
      const json = asObject(message, `messages[${i}]`);
      const name = json["role"];
      const role = typeof name === "string" && Object.hasOwn(ROLES, name) ? ROLES[name] : undefined;
      if (role === undefined)
        throw ServeError.field(
          `messages[${i}].role`,
          `is ${JSON.stringify(name)}, must be system, user or assistant`,
        );
      return { role, parts: await parts(json["content"], `messages[${i}].content`, readFile) };
    }),
  );
}

/** Typed fields of a body; a wrong type is named. */
class Body {
  constructor(private readonly json: Json) {}
  private typed<T>(key: string, type: string, ok: (value: unknown) => boolean): T | undefined {
    const value = this.json[key];
    if (value === undefined || value === null) return undefined;
    if (!ok(value)) throw ServeError.field(key, `is ${JSON.stringify(value)}, must be ${type}`);
    return value as T;
  }
  number(key: string): number | undefined {
    return this.typed(key, "a number", (value) => typeof value === "number");
  }
  whole(key: string): number | undefined {
    return this.typed(
      key,
      "a whole number of 0 or more",
      (v) => Number.isSafeInteger(v) && (v as number) >= 0 && (v as number) < 2 ** 32,
    );
  }
  /** Between −2⁵³ and 2⁵³. */
  integer(key: string): number | undefined {
    return this.typed(key, "a whole number", (value) => Number.isSafeInteger(value));
  }
  int32(key: string): number | undefined {
    const fits = (value: unknown) => Number.isInteger(value) && (value as number) >> 0 === value;
    return this.typed(key, "a whole number of 32 bits", fits);
  }
  text(key: string): string | undefined {
    return this.typed(key, "a text", (value) => typeof value === "string");
  }
  flag(key: string): boolean | undefined {
    return this.typed(key, "true or false", (value) => typeof value === "boolean");
  }
  texts(key: string): string[] {
    const value = this.json[key];
    if (typeof value === "string") return [value];
    return (
      this.typed<string[]>(
        key,
        "a text or a list of texts",
        (v) => Array.isArray(v) && v.every((t) => typeof t === "string"),
      ) ?? []
    );
  }
  ids(key: string): number[] {
    return (
      this.typed<number[]>(
        key,
        "a list of token ids",
        (v) => Array.isArray(v) && v.every((t) => Number.isInteger(t) && t >= 0 && t < 2 ** 32),
      ) ?? []
    );
  }
}

/** Keys whose value is undefined are left out. */
function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
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

export interface RequestOptions {
  /** Where `file:` URLs are allowed. */
  readFile?: ReadFile;
  /** The caller can stream: `stream: true` is taken. */
  stream?: boolean;
}

/** @throws ServeError INVALID_ARGUMENT naming the field. */
export async function toGenerateRequest(
  value: unknown,
  options: RequestOptions = {},
): Promise<GenerateInput> {
  const { readFile } = options;
  const json = asObject(value, "body");
  const unknown = Object.keys(json).find((key) => !KNOWN.has(key));
  if (unknown !== undefined)
    throw ServeError.field(unknown, "is not known or not served by this version", "NOT_BUILT");
  const body = new Body(json);
  if (body.flag("stream") === true && options.stream !== true)
    throw ServeError.field("stream", "is true, must be false where answers come whole");
  const seed = body.integer("seed");
  const sampling = defined({
    temperature: body.number("temperature"),
    topP: body.number("top_p"),
    topK: body.whole("top_k"),
    minP: body.number("min_p"),
    seed: seed === undefined ? undefined : BigInt.asUintN(64, BigInt(seed)),
    repetitionPenalty: body.number("repetition_penalty"),
    presencePenalty: body.number("presence_penalty"),
    frequencyPenalty: body.number("frequency_penalty"),
  });
  return defined({
    model: body.text("model") ?? "",
    messages: await messages(json["messages"], readFile),
    maxTokens: body.whole("max_completion_tokens") ?? body.whole("max_tokens"),
    minTokens: body.whole("min_tokens"),
    n: body.whole("n"),
    priority: body.int32("priority"),
    returnTokenIds: body.flag("return_token_ids"),
    skipSpecialTokens: body.flag("skip_special_tokens"),
    includeStopText: body.flag("include_stop_str_in_output"),
    topLogprobs: logprobs(body),
    stop: defined({
      texts: body.texts("stop"),
      tokenIds: body.ids("stop_token_ids"),
      ignoreEos: body.flag("ignore_eos"),
    }),
    sampling: {
      ...sampling,
      logitBias: logitBias(json),
      allowedTokenIds: body.ids("allowed_token_ids"),
      badWords: body.texts("bad_words"),
    },
  });
}
