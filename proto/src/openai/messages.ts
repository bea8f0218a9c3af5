/** OpenAI's messages → ours: texts, pictures, calls of tools and their results. */
import { ServeError } from "../errors.js";
import { ImageDetail, Role } from "../gen/tessera/v1/inference_pb.js";
import { asList, asObject, asText, oneOf, quote, type Json } from "./fields.js";

/** Reads what a `file:` URL names. */
export type ReadFile = (path: string) => Promise<Uint8Array>;

const ROLES: Record<string, Role> = {
  system: Role.SYSTEM,
  developer: Role.SYSTEM,
  user: Role.USER,
  assistant: Role.ASSISTANT,
  tool: Role.TOOL,
};

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

/** `tool_calls` of an assistant's message. */
function toolCalls(value: unknown, field: string) {
  return asList(value, field).map((call, i) => {
    const at = `${field}[${i}]`;
    const json = asObject(call, at);
    oneOf(json["type"] ?? "function", ["function"], `${at}.type`);
    const called = asObject(json["function"], `${at}.function`);
    return {
      id: asText(json["id"], `${at}.id`),
      name: asText(called["name"], `${at}.function.name`),
      arguments: asText(called["arguments"], `${at}.function.arguments`),
    };
  });
}

/** Known and not served. */
const REFUSED: Record<string, string> = {
  audio: "is not served; content is text and images",
  function_call: "is deprecated and not served; use tool_calls",
};

function refuse(json: Json, field: string): void {
  for (const [key, reason] of Object.entries(REFUSED))
    if (json[key] !== undefined && json[key] !== null)
      throw ServeError.field(`${field}.${key}`, reason, "NOT_BUILT");
}

async function message(value: unknown, field: string, readFile: ReadFile | undefined) {
  const json = asObject(value, field);
  const name = json["role"];
  const role = typeof name === "string" && Object.hasOwn(ROLES, name) ? ROLES[name] : undefined;
  if (role === undefined)
    throw ServeError.field(
      `${field}.role`,
      `is ${quote(name)}, must be system, developer, user, assistant or tool`,
    );
  refuse(json, field);
  const { content, tool_calls: called, tool_call_id: id } = json;
  const calls = called === undefined || called === null ? undefined : called;
  // OpenAI's own answers have null here beside calls.
  const none = (content === undefined || content === null) && calls !== undefined;
  return {
    role,
    parts: none ? [] : await parts(content, `${field}.content`, readFile),
    ...(calls === undefined ? {} : { toolCalls: toolCalls(calls, `${field}.tool_calls`) }),
    ...(id === undefined || id === null ? {} : { toolCallId: asText(id, `${field}.tool_call_id`) }),
  };
}

export async function messages(value: unknown, readFile: ReadFile | undefined) {
  const list = asList(value, "messages");
  return Promise.all(list.map((one, i) => message(one, `messages[${i}]`, readFile)));
}
