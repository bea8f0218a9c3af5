import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ConstraintSpec } from "../request/constraint.js";
import type { GrammarEngine } from "./index.js";
import { engineOf, FIELD, smallModel, type TestModel } from "./models.fixture.js";
import { walk } from "./walker.fixture.js";

/** Wall-clock bound of each case, the thread's start on a busy machine included. */
const BOUND_MS = 15_000;
const COMPILE_MS = 1500;

let model: TestModel;
let engine: GrammarEngine;

before(async () => {
  model = await smallModel();
  engine = engineOf(model, { compileMs: COMPILE_MS });
});
after(() => engine.close());

const schema = (value: unknown): ConstraintSpec => ({
  kind: "json_schema",
  schema: typeof value === "string" ? value : JSON.stringify(value),
});
const regex = (pattern: string): ConstraintSpec => ({ kind: "regex", pattern });
const ebnf = (text: string): ConstraintSpec => ({ kind: "grammar", ebnf: text });
const tag = (format: unknown): ConstraintSpec => ({
  kind: "structural_tag",
  tag: JSON.stringify({ type: "structural_tag", format }),
});

function exponential(keyword: "allOf" | "anyOf") {
  const $defs = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [
      `d${i}`,
      { [keyword]: [{ $ref: `#/$defs/d${i + 1}` }, { $ref: `#/$defs/d${i + 1}` }] },
    ]),
  );
  return { $ref: "#/$defs/d0", $defs: { ...$defs, d30: { type: "integer" } } };
}

const nested = (depth: number): unknown =>
  depth === 0 ? {} : { type: "array", items: nested(depth - 1) };

const REFUSED: [string, ConstraintSpec, RegExp][] = [
  ["text that is no JSON", schema("{"), /no JSON/],
  ["a schema of an unknown type", schema({ type: "strin" }), /no valid schema/],
  ["a schema that is a number", schema("7"), /an object or a boolean/],
  ["brackets 20,000 deep", schema("[".repeat(20_000) + "]".repeat(20_000)), /deep, the limit/],
  ["a schema 40 deep", schema(nested(40)), /deep, the limit/],
  [
    "an enum of 9,000 values",
    schema({ enum: Array.from({ length: 9000 }, (_, i) => i) }),
    /JSON values, the limit/,
  ],
  [
    "a source of 70,000 bytes",
    schema({ const: "x".repeat(70_000) }),
    /70\d\d\d bytes, at most 65536/,
  ],
  [
    "references that double 30 times under allOf",
    schema(exponential("allOf")),
    /combinations|ms to compile/,
  ],
  [
    "references that double 30 times under anyOf",
    schema(exponential("anyOf")),
    /combinations|ms to compile/,
  ],
  ["a reference to itself alone", schema({ $ref: "#" }), /never be satisfied/],
  [
    "an object that needs itself without end",
    schema({ type: "object", properties: { a: { $ref: "#" } }, required: ["a"] }),
    /never be satisfied/,
  ],
  [
    "a remote reference",
    schema({ properties: { a: { $ref: "http://127.0.0.1/x" } } }),
    /#\/properties\/a\/\$ref: .*within the schema/,
  ],
  ["a number beyond doubles", schema('{"maximum": 1e999}'), /range of a double/],
  ["a billion items", schema({ type: "array", minItems: 1e9 }), /#\/minItems: more than/],
  ["a billion characters", schema({ type: "string", minLength: 1e9 }), /#\/minLength: more than/],
  [
    "a pattern that never ends on an enum's value",
    schema({ enum: [`${"a".repeat(60)}!`], pattern: "^(a+)+$" }),
    /ms to compile/,
  ],
  [
    "a pattern that never ends on a property's name",
    schema({
      type: "object",
      properties: { [`${"a".repeat(60)}!`]: true },
      patternProperties: { "^(a+)+$": true },
    }),
    /ms to compile/,
  ],
  ["NUL in a property", schema('{"const": "a\\u0000b", "type": "integer"}'), /never be satisfied/],
  ["NUL in a choice", { kind: "choice", texts: ["a\0b"] }, /U\+0000/],
  [
    "half a surrogate pair in a choice",
    { kind: "choice", texts: ["a", "\ud800"] },
    /\[1\]: .*surrogate/,
  ],
  ["no choice at all", { kind: "choice", texts: [] }, /at least one/],
  [
    "2,000 choices",
    { kind: "choice", texts: Array.from({ length: 2000 }, String) },
    /at most 1024/,
  ],
  ["counts of a billion", regex("((a{1,999}){1,999}){1,999}"), /unroll to more than/],
  ["30,000 groups", regex("(".repeat(30_000) + "a" + ")".repeat(30_000)), /too deep|call stack/],
  ["a back reference", regex("(a)\\1"), /not supported/],
  ["a lookahead", regex("a(?!b)c"), /not supported/],
  ["an unfinished group", regex("(a"), /no regular expression/],
  ["a class of 20,992 ideographs", regex("[\\u4e00-\\u9fff]+"), /20992 characters beyond ASCII/],
  ["an EBNF without root", ebnf('a ::= "b"'), /no rule root/],
  ["an EBNF with an unknown rule", ebnf("root ::= b c"), /line 1, column 10: rule b/],
  ["an EBNF with an unfinished literal", ebnf('root ::= "a\n'), /line 1, column 12: " is expected/],
  ["an EBNF with an unfinished class", ebnf("root ::= [a-"), /is expected/],
  [
    "an EBNF that begins with itself in turns",
    ebnf('root ::= a\na ::= ""? b "x"\nb ::= a'),
    /never be satisfied/,
  ],
  ["an EBNF that never ends", ebnf('root ::= "a" root'), /never be satisfied/],
  ["an EBNF of 10,000 parentheses", ebnf(`root ::= ${"(".repeat(10_000)}`), /64 deep/],
  [
    "an EBNF of 4,500 rules",
    ebnf(`root ::= "a"\n${Array.from({ length: 4500 }, (_, i) => `r${i}::="a"\n`).join("")}`),
    /rules, the limit/,
  ],
  ["an EBNF with counts of counts", ebnf('root ::= (("a"{900}){900}){900}'), /unroll to more than/],
  ["an EBNF with NUL", ebnf('root ::= "\\x00"'), /U\+0000/],
  ["a tag of an unknown format", tag({ type: "xml" }), /#\/format\/type/],
  [
    "a tag whose begin has no trigger",
    tag({
      type: "triggered_tags",
      triggers: ["<b"],
      tags: [{ type: "tag", begin: "<a>", content: { type: "any_text" }, end: "</a>" }],
    }),
    /#\/format\/tags\/0\/begin: .*no trigger/,
  ],
  [
    "a tag with a schema that is not supported",
    tag({
      type: "tag",
      begin: "<a>",
      content: { type: "json_schema", json_schema: { properties: { x: { not: {} } } } },
      end: "</a>",
    }),
    /#\/format\/content\/json_schema\/properties\/x\/not: /,
  ],
];

for (const [name, spec, message] of REFUSED)
  test(`${name}: refused with the reason, in time`, async () => {
    const start = performance.now();
    await assert.rejects(engine.compile(spec, FIELD), (error: Error & { code?: string }) => {
      assert.equal(error.code, "INVALID_ARGUMENT", error.message);
      assert.match(error.message, /^response_format: /);
      assert.match(error.message, message);
      return true;
    });
    assert.ok(performance.now() - start < BOUND_MS);
  });

const HARMLESS: [string, ConstraintSpec][] = [
  ["(a+)+b", regex("(a+)+b")],
  ["(a|a)*b", regex("(a|a)*b")],
  ["(x+x+)+y", regex("(x+x+)+y")],
  ["([a-z]+)*([0-9]+)*(.*)*", regex("([a-z]+)*([0-9]+)*(.*)*")],
  ["(.*)(.*)(.*)(.*)(.*)=", regex("(.*)(.*)(.*)(.*)(.*)=")],
  ["^(([a-z])+.)+[A-Z]([a-z])+$", regex("^(([a-z])+.)+[A-Z]([a-z])+$")],
  ["a schema's pattern (a+)+$", schema({ type: "string", pattern: "(a+)+$" })],
  ["a nullable rule under a star", ebnf('root ::= (a | "")* "."\na ::= [a-z]*')],
  ["an EBNF that begins with itself", ebnf('root ::= root "a" | root root | "b"')],
  [
    "__proto__ as a property",
    schema(
      '{"type":"object","properties":{"__proto__":{"type":"integer"}},"required":["__proto__"]}',
    ),
  ],
];

for (const [name, spec] of HARMLESS)
  test(`${name}: matched in time`, async () => {
    const start = performance.now();
    const grammar = await engine.compile(spec, FIELD);
    const { tokenizer, stopIds } = model;
    const drawn = await walk(grammar, { tokenizer, stopIds, seed: 5, lengthMax: 60 });
    grammar.close();
    assert.equal(drawn.failure, undefined);
    assert.ok(performance.now() - start < BOUND_MS);
  });

test("after all of them: nothing is in use, and the next constraint is served", async () => {
  assert.equal(engine.stats.used, 0);
  assert.equal(engine.stats.matchers, 0);
  const grammar = await engine.compile({ kind: "choice", texts: ["fine"] }, FIELD);
  const { tokenizer, stopIds } = model;
  assert.equal((await walk(grammar, { tokenizer, stopIds, seed: 1, lengthMax: 9 })).text, "fine");
  grammar.close();
});
