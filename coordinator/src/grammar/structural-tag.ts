/**
 * Structural tags: free text with constrained parts, in XGrammar's JSON. Their shape is checked here, and what stands
 * in them as schema, pattern or grammar is replaced by the grammar we make of it: the same holds inside and outside.
 */
import { Ajv, type ErrorObject } from "ajv";
import { refuseNeeded, writeGrammar } from "./ebnf-text.js";
import { readEbnf } from "./ebnf-source.js";
import { alt, RuleBook, text as plainText, type Expression } from "./expression.js";
import type { GrammarLimits } from "./limits.js";
import { wholeMatch } from "./pattern.js";
import { Refusal } from "./refusal.js";
import { isObject, parseJson, type Json, type SchemaObject } from "./schema/document.js";
import { documentExpression } from "./schema/schema.js";

const text = { type: "string", minLength: 1 };
const format = { $ref: "#/$defs/format" };
const tags = { type: "array", items: { $ref: "#/$defs/tag" }, minItems: 1 };

function object(type: string, properties: object, optional: string[] = []): object {
  const required = Object.keys(properties).filter((name) => !optional.includes(name));
  return {
    type: "object",
    properties: { type: { const: type }, ...properties },
    required: ["type", ...required],
    additionalProperties: false,
  };
}

const repeats = { at_least_one: { type: "boolean" }, stop_after_first: { type: "boolean" } };
const TAG = object("tag", { begin: text, content: format, end: { type: "string" } });
const FORMATS: Record<string, object> = {
  const_string: object("const_string", { value: text }),
  json_schema: object("json_schema", { json_schema: { type: ["object", "boolean"] } }),
  grammar: object("grammar", { grammar: text }),
  regex: object("regex", { pattern: text }),
  any_text: object("any_text", {}),
  sequence: object("sequence", { elements: { type: "array", items: format, minItems: 1 } }),
  or: object("or", { elements: { type: "array", items: format, minItems: 1 } }),
  tag: TAG,
  triggered_tags: object(
    "triggered_tags",
    { triggers: { type: "array", items: text, minItems: 1 }, tags, ...repeats },
    Object.keys(repeats),
  ),
  tags_with_separator: object(
    "tags_with_separator",
    { tags, separator: text, ...repeats },
    Object.keys(repeats),
  ),
};

const SHAPE = {
  type: "object",
  properties: { type: { const: "structural_tag" }, format },
  required: ["type", "format"],
  additionalProperties: false,
  $defs: {
    tag: TAG,
    format: {
      type: "object",
      properties: { type: { enum: Object.keys(FORMATS) } },
      required: ["type"],
      allOf: Object.entries(FORMATS).map(([type, then]) => ({
        if: { properties: { type: { const: type } }, required: ["type"] },
        then,
      })),
    },
  },
};

const validate = new Ajv({ strict: false, logger: false }).compile<object>(SHAPE);

export interface TagText {
  /** What XGrammar takes. */
  tag: string;
  forbidden: number[];
}

/** @throws Refusal with the path of what is wrong. */
export function readStructuralTag(source: string, limits: GrammarLimits): TagText {
  const value = parseJson(source, limits);
  const tag = withoutLegacy(value);
  if (!validate(tag)) throw explain(validate.errors ?? []);
  const forbidden = new Set<number>();
  const needed = new Set<number>();
  const written = rewrite(tag, { path: "#", limits, forbidden, needed });
  refuseNeeded([...forbidden], [...needed]);
  return { tag: JSON.stringify(written), forbidden: [...forbidden] };
}

/** The older form: `structures` of `begin`, `schema`, `end`, with `triggers`. */
function withoutLegacy(value: Json): Json {
  if (!isObject(value) || !Array.isArray(value["structures"])) return value;
  const { structures, triggers } = value;
  const tags = structures.map((each): Json => {
    if (!isObject(each)) return each;
    const { begin, schema, end, ...rest } = each;
    const content = { type: "json_schema", json_schema: schema ?? true };
    return { type: "tag", begin: begin ?? null, content, end: end ?? null, ...rest };
  });
  return {
    type: "structural_tag",
    format: { type: "triggered_tags", triggers: triggers ?? null, tags },
  };
}

/** The deepest error says most: those above it only say that a branch does not fit. */
function explain(errors: readonly ErrorObject[]): Refusal {
  const deepest = [...errors]
    .filter(({ keyword }) => keyword !== "if")
    .sort((a, b) => b.instancePath.length - a.instancePath.length)[0];
  const extra: unknown = deepest?.params["allowedValues"] ?? deepest?.params["additionalProperty"];
  const detail = extra === undefined ? "" : `: ${JSON.stringify(extra)}`;
  return new Refusal(
    `${deepest?.message ?? "no structural tag"}${detail}`,
    `#${deepest?.instancePath ?? ""}`,
  );
}

/** What XGrammar 0.1.27 refuses without a word: each tag begins with one of the triggers, and with one alone. */
function checkTriggers({ triggers, tags }: SchemaObject, path: string): void {
  const marks = Array.isArray(triggers) ? triggers.filter((mark) => typeof mark === "string") : [];
  const inner = marks.find((a, i) => marks.some((b, j) => i !== j && b.startsWith(a)));
  if (inner !== undefined)
    throw new Refusal(`${JSON.stringify(inner)} begins another trigger`, `${path}/triggers`);
  (Array.isArray(tags) ? tags : []).forEach((tag, i) => {
    const begin = isObject(tag) && typeof tag["begin"] === "string" ? tag["begin"] : "";
    if (!marks.some((mark) => begin.startsWith(mark)))
      throw new Refusal(
        `${JSON.stringify(begin)} begins with no trigger`,
        `${path}/tags/${i}/begin`,
      );
  });
}

interface Place {
  path: string;
  limits: GrammarLimits;
  forbidden: Set<number>;
  needed: Set<number>;
}

function rewrite(value: Json, place: Place): Json {
  const { path } = place;
  if (Array.isArray(value))
    return value.map((part, i) => rewrite(part, { ...place, path: `${path}/${i}` }));
  if (typeof value === "string" && value.includes("\0"))
    throw new Refusal("U+0000 is not supported", path);
  if (typeof value === "string" && !value.isWellFormed())
    throw new Refusal("half of a surrogate pair is not supported", path);
  if (typeof value === "string")
    for (const letter of value) if (letter > "\x7f") place.needed.add(letter.codePointAt(0) ?? 0);
  if (!isObject(value)) return value;
  const joined = joinChoice(value, place);
  if (joined !== undefined) return joined;
  const inner = innerGrammar(value, place);
  if (inner !== undefined) return { type: "grammar", grammar: inner };
  if (value["type"] === "triggered_tags") checkTriggers(value, path);
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [
      key,
      rewrite(part, { ...place, path: `${path}/${key}` }),
    ]),
  );
}

type Make = [make: () => Expression, rules: readonly Expression[], where: string];

function writeInner([make, rules, where]: Make, { path, forbidden, needed }: Place): string {
  const out = within(`${path}/${where}`, () => writeGrammar(make(), rules));
  for (const point of out.forbidden) forbidden.add(point);
  for (const point of out.needed) needed.add(point);
  return out.ebnf;
}

/** Texts and patterns of a choice as one grammar, before its other elements: XGrammar mixes them (`factor.ts`). */
function joinChoice(value: SchemaObject, place: Place): Json | undefined {
  const { type, elements } = value;
  if (type !== "or" || !Array.isArray(elements)) return undefined;
  const parts = elements.map((element, i) =>
    isObject(element) ? choicePart(element, i) : undefined,
  );
  const joined = parts.filter((part) => part !== undefined);
  if (joined.length < 2) return undefined;
  const make = () => alt(...joined.map((part) => part()));
  const grammar: Json = { type: "grammar", grammar: writeInner([make, [], "elements"], place) };
  const others = elements.flatMap((element, i) =>
    parts[i] === undefined
      ? [rewrite(element, { ...place, path: `${place.path}/elements/${i}` })]
      : [],
  );
  return others.length === 0 ? grammar : { type: "or", elements: [grammar, ...others] };
}

function choicePart(
  { type, value, pattern }: SchemaObject,
  index: number,
): (() => Expression) | undefined {
  if (type === "const_string" && typeof value === "string") return () => plainText(value);
  if (type !== "regex" || typeof pattern !== "string") return undefined;
  return () => within(`#/${index}/pattern`, () => wholeMatch(pattern));
}

function innerGrammar(format: SchemaObject, place: Place): string | undefined {
  const { path, limits } = place;
  const { type, json_schema: schema, pattern, grammar } = format;
  const book = new RuleBook(limits.rules);
  const write = (...args: Make) => writeInner(args, place);
  if (type === "json_schema")
    return write(() => documentExpression(schema, book), book.rules, "json_schema");
  if (type === "regex" && typeof pattern === "string")
    return write(() => wholeMatch(pattern), [], "pattern");
  if (type !== "grammar" || typeof grammar !== "string") return undefined;
  const read = within(`${path}/grammar`, () => readEbnf(grammar, limits.rules));
  return write(() => read.root, read.rules, "grammar");
}

/** The path of a refusal inside, seen from the tag. */
function within<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const inner = error.path === undefined ? "" : error.path.replace(/^#/, "");
    const message =
      error.path === undefined ? error.message : error.message.slice(error.path.length + 2);
    throw new Refusal(message, path + inner);
  }
}
