/** One conjunction of keywords, without references and alternatives: what a schema comes to along one way. */
import type { Json, Schema } from "./document.js";

export const JSON_TYPES = [
  "null",
  "boolean",
  "integer",
  "number",
  "string",
  "array",
  "object",
] as const;
export type JsonType = (typeof JSON_TYPES)[number];

export interface Shape {
  /** `number` takes in `integer`. */
  types: ReadonlySet<JsonType>;
  /** From `const` and `enum`. */
  values: readonly Json[] | undefined;
  min: number | undefined;
  max: number | undefined;
  minOpen: boolean;
  maxOpen: boolean;
  multiples: readonly number[];
  minLength: number;
  maxLength: number | undefined;
  patterns: readonly string[];
  formats: readonly string[];
  prefix: readonly Schema[];
  items: Schema | undefined;
  minItems: number;
  maxItems: number | undefined;
  unique: boolean;
  contains: readonly { schema: Schema; count: number }[];
  properties: ReadonlyMap<string, Schema>;
  patternProperties: ReadonlyMap<string, Schema>;
  additional: Schema | undefined;
  names: readonly Schema[];
  required: ReadonlySet<string>;
  minProperties: number;
  maxProperties: number | undefined;
}

export const ANY_SHAPE: Shape = {
  types: new Set(JSON_TYPES.filter((type) => type !== "integer")),
  values: undefined,
  min: undefined,
  max: undefined,
  minOpen: false,
  maxOpen: false,
  multiples: [],
  minLength: 0,
  maxLength: undefined,
  patterns: [],
  formats: [],
  prefix: [],
  items: undefined,
  minItems: 0,
  maxItems: undefined,
  unique: false,
  contains: [],
  properties: new Map(),
  patternProperties: new Map(),
  additional: undefined,
  names: [],
  required: new Set(),
  minProperties: 0,
  maxProperties: undefined,
};

/** `{allOf}` of what is said more than once; booleans and doubles fall away. */
export function both(a: Schema | undefined, b: Schema | undefined): Schema | undefined {
  if (a === undefined || a === true) return b ?? a;
  if (b === undefined || b === true) return a;
  if (a === false || b === false) return false;
  return JSON.stringify(a) === JSON.stringify(b) ? a : { allOf: [a, b] };
}

function commonTypes(a: ReadonlySet<JsonType>, b: ReadonlySet<JsonType>): Set<JsonType> {
  const common = new Set([...a].filter((type) => b.has(type)));
  const whole = (set: ReadonlySet<JsonType>) => set.has("integer") || set.has("number");
  if (whole(a) && whole(b) && !common.has("number")) common.add("integer");
  if (common.has("number")) common.delete("integer");
  return common;
}

function least(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined ? b : b === undefined ? a : Math.min(a, b);
}

/** What both say; undefined when nothing can match. */
export function merge(a: Shape, b: Shape): Shape | undefined {
  const types = commonTypes(a.types, b.types);
  const values = commonValues(a.values, b.values);
  if (types.size === 0 || values?.length === 0) return undefined;
  return {
    types,
    values,
    ...mergeBounds(a, b),
    multiples: [...new Set([...a.multiples, ...b.multiples])],
    minLength: Math.max(a.minLength, b.minLength),
    maxLength: least(a.maxLength, b.maxLength),
    patterns: [...new Set([...a.patterns, ...b.patterns])],
    formats: [...new Set([...a.formats, ...b.formats])],
    ...mergeItems(a, b),
    minItems: Math.max(a.minItems, b.minItems),
    maxItems: least(a.maxItems, b.maxItems),
    unique: a.unique || b.unique,
    contains: [...a.contains, ...b.contains],
    properties: mergeProperties(a, b),
    patternProperties: mergePatterns(a, b),
    additional: both(a.additional, b.additional),
    names: [...a.names, ...b.names],
    required: new Set([...a.required, ...b.required]),
    minProperties: Math.max(a.minProperties, b.minProperties),
    maxProperties: least(a.maxProperties, b.maxProperties),
  };
}

function commonValues(
  a: readonly Json[] | undefined,
  b: readonly Json[] | undefined,
): readonly Json[] | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const written = new Set(b.map(canonical));
  return a.filter((value) => written.has(canonical(value)));
}

/** JSON with sorted keys: equal values, equal text. */
export function canonical(value: Json): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, part]) => `${JSON.stringify(key)}:${canonical(part)}`).join(",")}}`;
}

function mergeBounds(a: Shape, b: Shape): Pick<Shape, "min" | "max" | "minOpen" | "maxOpen"> {
  const min = a.min === undefined ? b.min : Math.max(a.min, b.min ?? a.min);
  const max = least(a.max, b.max);
  return {
    min,
    max,
    minOpen: (a.minOpen && a.min === min) || (b.minOpen && b.min === min),
    maxOpen: (a.maxOpen && a.max === max) || (b.maxOpen && b.max === max),
  };
}

function mergeItems(a: Shape, b: Shape): Pick<Shape, "prefix" | "items"> {
  const length = Math.max(a.prefix.length, b.prefix.length);
  const prefix = Array.from(
    { length },
    (_, i) => both(a.prefix[i] ?? a.items, b.prefix[i] ?? b.items) ?? true,
  );
  return { prefix, items: both(a.items, b.items) };
}

/** A property that one side alone names falls under the other side's patterns and rest. */
function mergeProperties(a: Shape, b: Shape): Map<string, Schema> {
  const names = new Set([...a.properties.keys(), ...b.properties.keys()]);
  return new Map(
    [...names].map((name) => [name, both(underName(a, name), underName(b, name)) ?? true]),
  );
}

function underName(shape: Shape, name: string): Schema | undefined {
  const named = shape.properties.get(name);
  if (named !== undefined) return named;
  const matching = matchingPatterns(shape, name);
  return matching.length === 0
    ? shape.additional
    : matching.reduce<Schema | undefined>((all, each) => both(all, each), undefined);
}

/** Schemas of the patterns that a name matches. */
export function matchingPatterns(shape: Shape, name: string): Schema[] {
  return [...shape.patternProperties]
    .filter(([pattern]) => new RegExp(pattern, "u").test(name))
    .map(([, schema]) => schema);
}

/** A pattern of one side falls under the other side's rest, unless that has it too. */
function mergePatterns(a: Shape, b: Shape): Map<string, Schema> {
  const patterns = new Set([...a.patternProperties.keys(), ...b.patternProperties.keys()]);
  const side = (shape: Shape, pattern: string) =>
    shape.patternProperties.get(pattern) ?? shape.additional;
  return new Map(
    [...patterns].map((pattern) => [pattern, both(side(a, pattern), side(b, pattern)) ?? true]),
  );
}
