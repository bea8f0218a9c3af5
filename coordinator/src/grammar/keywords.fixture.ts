import { STRUCTURE_CASES } from "./keywords-structure.fixture.js";

/** Keywords of JSON Schema with values that must and must not pass, and what becomes of them in the pinned versions. */
export interface KeywordCase {
  keyword: string;
  schema: object | boolean;
  /** Valid, and written as the grammar writes JSON. */
  good?: readonly unknown[];
  bad?: readonly unknown[];
  /** How the message of our refusal begins; without it the keyword is enforced. */
  refused?: string;
  /**
   * XGrammar's own converter: right for all values; wrong for some; silent where we refuse; or it aborts its WASM
   * instance.
   */
  xgrammar: "right" | "wrong" | "silent" | "aborts";
}

const VALUE_CASES: readonly KeywordCase[] = [
  { keyword: "true", schema: true, good: [1, "a", {}], bad: [], xgrammar: "right" },
  {
    keyword: "false in a property",
    schema: { type: "object", properties: { a: false, b: { type: "integer" } } },
    good: [{ b: 1 }],
    bad: [{ a: 1 }],
    xgrammar: "aborts",
  },
  { keyword: "type", schema: { type: "boolean" }, good: [true], bad: [1], xgrammar: "right" },
  {
    keyword: "type list",
    schema: { type: ["integer", "null"] },
    good: [1, null],
    bad: ["a", true],
    xgrammar: "right",
  },
  {
    keyword: "const",
    schema: { const: { a: [1, "x"] } },
    good: [{ a: [1, "x"] }],
    bad: [{ a: [1] }],
    xgrammar: "right",
  },
  { keyword: "const null", schema: { const: null }, good: [null], bad: [0], xgrammar: "right" },
  {
    keyword: "enum",
    schema: { enum: ["a", 2, null] },
    good: ["a", 2, null],
    bad: ["b", 3],
    xgrammar: "right",
  },
  {
    keyword: "enum beside type",
    schema: { type: "string", enum: ["a", 2] },
    good: ["a"],
    bad: [2],
    xgrammar: "wrong",
  },
  {
    keyword: "enum beside maxLength",
    schema: { enum: ["a", "bbb"], maxLength: 1 },
    good: ["a"],
    bad: ["bbb"],
    xgrammar: "wrong",
  },
  {
    keyword: "minimum integer",
    schema: { type: "integer", minimum: -3 },
    good: [-3, 0, 12345],
    bad: [-4],
    xgrammar: "wrong",
  },
  {
    keyword: "maximum integer",
    schema: { type: "integer", maximum: 120 },
    good: [120, -5, 7],
    bad: [121, 999],
    xgrammar: "wrong",
  },
  {
    keyword: "exclusiveMinimum integer",
    schema: { type: "integer", exclusiveMinimum: 3 },
    good: [4, 30],
    bad: [3, 2],
    xgrammar: "wrong",
  },
  {
    keyword: "exclusiveMaximum integer",
    schema: { type: "integer", exclusiveMaximum: 3 },
    good: [2, -30],
    bad: [3, 4],
    xgrammar: "right",
  },
  {
    keyword: "minimum fractional",
    schema: { type: "number", minimum: 0.5 },
    good: [0.5, 0.75, 1, 31.5],
    bad: [0.25, 0, -1, 0.49],
    xgrammar: "right",
  },
  {
    keyword: "maximum fractional",
    schema: { type: "number", maximum: 1.5 },
    good: [1.5, 1.25, -3, 0.1],
    bad: [1.51, 2, 1.6],
    xgrammar: "right",
  },
  {
    keyword: "exclusive fractional",
    schema: { type: "number", exclusiveMinimum: 0.1, exclusiveMaximum: 0.3 },
    good: [0.2, 0.11, 0.29],
    bad: [0.1, 0.3, 0.31, 0.09],
    xgrammar: "wrong",
  },
  {
    keyword: "minimum negative fractional",
    schema: { type: "number", minimum: -1.5, maximum: -0.25 },
    good: [-1.5, -0.25, -1],
    bad: [-1.6, -0.2, 0, 1],
    xgrammar: "wrong",
  },
  {
    keyword: "minimum of a large integer",
    schema: { type: "integer", minimum: 100000000000, maximum: 100000000005 },
    good: [100000000003],
    bad: [100000000006, 99999999999],
    xgrammar: "right",
  },
  {
    keyword: "minimum beyond what a double counts",
    schema: { type: "integer", minimum: 100000000000000000000 },
    refused: "can never be satisfied",
    xgrammar: "aborts",
  },
  {
    keyword: "multipleOf integer",
    schema: { type: "integer", multipleOf: 7 },
    good: [0, 7, -14, 49],
    bad: [1, 8, -3],
    xgrammar: "wrong",
  },
  {
    keyword: "multipleOf within bounds",
    schema: { type: "integer", minimum: 10, maximum: 40, multipleOf: 15 },
    good: [15, 30],
    bad: [10, 20, 45],
    xgrammar: "wrong",
  },
  {
    keyword: "multipleOf 0.01",
    schema: { type: "number", multipleOf: 0.01 },
    refused: "#/multipleOf",
    xgrammar: "silent",
  },
  {
    keyword: "minLength",
    schema: { type: "string", minLength: 3 },
    good: ["abc", "abcdef"],
    bad: ["ab", ""],
    xgrammar: "right",
  },
  {
    keyword: "maxLength",
    schema: { type: "string", maxLength: 3 },
    good: ["abc", ""],
    bad: ["abcd"],
    xgrammar: "right",
  },
  {
    keyword: "maxLength long",
    schema: { type: "string", minLength: 2, maxLength: 100 },
    good: ["ab", "x".repeat(100)],
    bad: ["x".repeat(101), "a"],
    xgrammar: "right",
  },
  {
    keyword: "pattern anchored",
    schema: { type: "string", pattern: "^[a-c]{2}$" },
    good: ["ab"],
    bad: ["abc", "a", "xx"],
    xgrammar: "right",
  },
  {
    keyword: "pattern open",
    schema: { type: "string", pattern: "b+" },
    good: ["b", "abbc"],
    bad: ["ac", ""],
    xgrammar: "wrong",
  },
  {
    keyword: "pattern with a dot",
    schema: { type: "string", pattern: "^.{2}$" },
    good: ["ab"],
    bad: ["a", "a\nb"],
    xgrammar: "right",
  },
  {
    keyword: "pattern that escapes",
    schema: { type: "string", pattern: '^"\\\\$' },
    good: ['"\\'],
    bad: ["a", '"'],
    xgrammar: "wrong",
  },
  {
    keyword: "pattern with lookahead",
    schema: { type: "string", pattern: "^(?=a)b" },
    refused: "#/pattern",
    xgrammar: "aborts",
  },
  {
    keyword: "pattern beside maxLength",
    schema: { type: "string", pattern: "^[a-z]+$", maxLength: 3 },
    good: ["abc"],
    bad: ["abcd", "A"],
    xgrammar: "wrong",
  },
  {
    keyword: "two patterns",
    schema: { allOf: [{ type: "string", pattern: "a" }, { pattern: "b" }] },
    refused: "#/pattern",
    xgrammar: "silent",
  },
  {
    keyword: "format date",
    schema: { type: "string", format: "date" },
    good: ["2024-02-28"],
    bad: ["2024-13-01", "2024-02-30", "today"],
    xgrammar: "wrong",
  },
  {
    keyword: "format uuid",
    schema: { type: "string", format: "uuid" },
    good: ["123e4567-e89b-12d3-a456-426614174000"],
    bad: ["123e4567"],
    xgrammar: "right",
  },
  {
    keyword: "format email",
    schema: { type: "string", format: "email" },
    good: ["ann@example.com"],
    bad: ["ann", "@x"],
    xgrammar: "right",
  },
  {
    keyword: "format ipv4",
    schema: { type: "string", format: "ipv4" },
    good: ["10.0.0.255"],
    bad: ["10.0.0.256", "1.2.3"],
    xgrammar: "right",
  },
  {
    keyword: "format json-pointer",
    schema: { type: "string", format: "json-pointer" },
    refused: "#/format",
    xgrammar: "silent",
  },
];

export const KEYWORD_CASES: readonly KeywordCase[] = [...VALUE_CASES, ...STRUCTURE_CASES];
