/** OpenAI's response items → the messages of a chat body, and which item each came from. */
import { ServeError } from "../errors.js";
import { asList, asObject, asText, oneOf, quote, type Json } from "./fields.js";

const NOT_STORED = "is not served; answers are not stored, send the items themselves";

/** Known and not served. */
const REFUSED_ITEMS: Record<string, string> = {
  item_reference: NOT_STORED,
  reasoning: "is not served; the models do not reason apart from their answer",
};

/** A message and the fields that it was read from. */
export interface Placed {
  message: Json;
  field: string;
  /** Of its calls. */
  calls: string[];
}

function refused(field: string, reason: string): ServeError {
  return ServeError.field(field, reason, "NOT_BUILT");
}

function none(value: unknown): boolean {
  return value === undefined || value === null;
}

function imagePart(json: Json, field: string): Json {
  if (!none(json["file_id"])) throw refused(`${field}.file_id`, "is not served; send a data URL");
  const url = asText(json["image_url"], `${field}.image_url`);
  const { detail } = json;
  return { type: "image_url", image_url: none(detail) ? { url } : { url, detail } };
}

const PARTS = ["input_text", "output_text", "refusal", "input_image"] as const;

function part(value: unknown, field: string): Json {
  const json = asObject(value, field);
  if (json["type"] === "input_file" || json["type"] === "input_audio")
    throw refused(`${field}.type`, `is ${quote(json["type"])}; content is text and images`);
  switch (oneOf(json["type"], PARTS, `${field}.type`)) {
    case "input_image":
      return imagePart(json, field);
    case "refusal":
      return { type: "text", text: asText(json["refusal"], `${field}.refusal`) };
    default:
      return { type: "text", text: asText(json["text"], `${field}.text`) };
  }
}

function content(value: unknown, field: string): string | Json[] {
  if (typeof value === "string") return value;
  return asList(value, field).map((one, i) => part(one, `${field}[${i}]`));
}

const ROLES = ["user", "assistant", "system", "developer"] as const;

function message(json: Json, field: string): Placed {
  const role = oneOf(json["role"], ROLES, `${field}.role`);
  return {
    message: { role, content: content(json["content"], `${field}.content`) },
    field,
    calls: [],
  };
}

function call(json: Json, field: string): Json {
  const name = asText(json["name"], `${field}.name`);
  const args = asText(json["arguments"], `${field}.arguments`);
  const id = asText(json["call_id"], `${field}.call_id`);
  return { id, type: "function", function: { name, arguments: args } };
}

function result(json: Json, field: string): Placed {
  const id = asText(json["call_id"], `${field}.call_id`);
  const output = content(json["output"], `${field}.output`);
  return { message: { role: "tool", tool_call_id: id, content: output }, field, calls: [] };
}

/** Calls belong to the assistant's message before them, or make one. */
function addCall(placed: Placed[], json: Json, field: string): void {
  const last = placed.at(-1);
  const one = call(json, field);
  if (last?.message["role"] !== "assistant") {
    const fresh = { role: "assistant", content: null, tool_calls: [one] };
    placed.push({ message: fresh, field, calls: [field] });
    return;
  }
  const known = (last.message["tool_calls"] ?? []) as Json[];
  last.message["tool_calls"] = [...known, one];
  last.calls.push(field);
}

function addItem(placed: Placed[], value: unknown, field: string): void {
  const json = asObject(value, field);
  const type = json["type"] ?? "message";
  const reason =
    typeof type === "string" && Object.hasOwn(REFUSED_ITEMS, type)
      ? REFUSED_ITEMS[type]
      : undefined;
  if (reason !== undefined) throw refused(`${field}.type`, `${quote(type)} ${reason}`);
  const known = ["message", "function_call", "function_call_output"] as const;
  switch (oneOf(type, known, `${field}.type`)) {
    case "message":
      placed.push(message(json, field));
      return;
    case "function_call":
      addCall(placed, json, field);
      return;
    case "function_call_output":
      placed.push(result(json, field));
      return;
  }
}

/** @throws ServeError INVALID_ARGUMENT, NOT_BUILT */
export function inputMessages(input: unknown, instructions: string | undefined): Placed[] {
  const placed: Placed[] = [];
  if (instructions !== undefined)
    placed.push({
      message: { role: "system", content: instructions },
      field: "instructions",
      calls: [],
    });
  if (typeof input === "string") {
    placed.push({ message: { role: "user", content: input }, field: "input", calls: [] });
    return placed;
  }
  asList(input, "input").forEach((item, i) => addItem(placed, item, `input[${i}]`));
  return placed;
}

/** A field of a chat body, or of our message, as the client named it. */
export function placeField(field: string, placed: Placed[]): string {
  const found = /^messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?(.*)$/.exec(field);
  if (found === null) return field === "messages" ? "input" : field;
  const [, m, c, rest = ""] = found;
  const of = placed[Number(m)];
  const base = (c === undefined ? undefined : of?.calls[Number(c)]) ?? of?.field ?? "input";
  return (
    base +
    rest
      .replace(/^\.parts/, ".content")
      .replace(/^\.tool_call_id/, ".call_id")
      .replace(/^\.function\./, ".")
      .replace(/^\.id$/, ".call_id")
      .replace(/\.image_url\.url$|\.image\.data$/, ".image_url")
      .replace(/\.image_url\.detail$|\.image\.options\.detail$/, ".detail")
  );
}
