/** What an answer must match: OpenAI's response_format, vLLM's guided_… and structured_outputs → one constraint. */
import { ServeError } from "../errors.js";
import { asJsonObject, asList, asObject, asText, oneOf, quote, type Json } from "./fields.js";

type Kind =
  | { case: "jsonSchema" | "regex" | "grammar" | "structuralTag"; value: string }
  | { case: "jsonObject"; value: boolean }
  | { case: "choice"; value: { texts: string[] } };

/** A schema as an object, or as its text. */
function schemaText(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  return JSON.stringify(asJsonObject(value, field));
}

function jsonSchema(value: unknown): Kind {
  const field = "response_format.json_schema";
  const json = asObject(value, field);
  asText(json["name"], `${field}.name`);
  const { strict } = json;
  if (strict !== undefined && strict !== null && typeof strict !== "boolean")
    throw ServeError.field(`${field}.strict`, `is ${quote(strict)}, must be true or false`);
  const schema = asJsonObject(json["schema"], `${field}.schema`);
  return { case: "jsonSchema", value: JSON.stringify(schema) };
}

const FORMATS = ["text", "json_object", "json_schema", "structural_tag"] as const;

function responseFormat(value: unknown): Kind | undefined {
  const json = asObject(value, "response_format");
  switch (oneOf(json["type"], FORMATS, "response_format.type")) {
    case "text":
      return undefined;
    case "json_object":
      return { case: "jsonObject", value: true };
    case "json_schema":
      return jsonSchema(json["json_schema"]);
    case "structural_tag": {
      const tag = JSON.stringify(asJsonObject(json, "response_format"));
      return { case: "structuralTag", value: tag };
    }
  }
}

const jsonKind = (value: unknown, field: string): Kind => ({
  case: "jsonSchema",
  value: schemaText(value, field),
});
const regexKind = (value: unknown, field: string): Kind => ({
  case: "regex",
  value: asText(value, field),
});
const grammarKind = (value: unknown, field: string): Kind => ({
  case: "grammar",
  value: asText(value, field),
});
const tagKind = (value: unknown, field: string): Kind => ({
  case: "structuralTag",
  value: schemaText(value, field),
});
const choiceKind = (value: unknown, field: string): Kind => ({
  case: "choice",
  value: { texts: asList(value, field).map((text, i) => asText(text, `${field}[${i}]`)) },
});
function objectKind(value: unknown, field: string): Kind | undefined {
  if (typeof value !== "boolean")
    throw ServeError.field(field, `is ${quote(value)}, must be true or false`);
  return value ? { case: "jsonObject", value } : undefined;
}

const STRUCTURED: Record<string, (value: unknown, field: string) => Kind | undefined> = {
  json: jsonKind,
  regex: regexKind,
  choice: choiceKind,
  grammar: grammarKind,
  structural_tag: tagKind,
  json_object: objectKind,
};

const GUIDED: Record<string, (value: unknown, field: string) => Kind | undefined> = {
  response_format: responseFormat,
  guided_json: jsonKind,
  guided_regex: regexKind,
  guided_choice: choiceKind,
  guided_grammar: grammarKind,
};

export const CONSTRAINT_KEYS = [...Object.keys(GUIDED), "structured_outputs"];

/** What of `json` each key asks for; null is nothing. */
function read(json: Json, readers: typeof GUIDED, prefix: string): [field: string, kind: Kind][] {
  return Object.entries(readers).flatMap(([key, reader]) => {
    const value = json[key];
    const field = prefix + key;
    const kind = value === undefined || value === null ? undefined : reader(value, field);
    return kind === undefined ? [] : [[field, kind]];
  });
}

function structuredOutputs(value: unknown): [field: string, kind: Kind][] {
  if (value === undefined || value === null) return [];
  const json = asObject(value, "structured_outputs");
  const unknown = Object.keys(json).find(
    (key) => !Object.hasOwn(STRUCTURED, key) && json[key] !== null,
  );
  if (unknown !== undefined)
    throw ServeError.field(
      `structured_outputs.${unknown}`,
      "is not known or not served by this version",
      "NOT_BUILT",
    );
  const found = read(json, STRUCTURED, "structured_outputs.");
  if (found.length === 0) throw ServeError.field("structured_outputs", "has no constraint");
  return found;
}

/** @throws ServeError INVALID_ARGUMENT when there are two. */
export function constraint(json: Json): { kind: Kind } | undefined {
  const all = [...read(json, GUIDED, ""), ...structuredOutputs(json["structured_outputs"])];
  const [first, second] = all;
  if (first !== undefined && second !== undefined)
    throw ServeError.field(second[0], `is given beside ${first[0]}; an answer has one constraint`);
  return first === undefined ? undefined : { kind: first[1] };
}
