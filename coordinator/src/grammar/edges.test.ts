import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ConstraintSpec } from "../request/constraint.js";
import { acceptedBy, jsonSchema } from "./accepted.fixture.js";
import type { GrammarEngine } from "./index.js";
import { engineOf, FIELD, smallModel, type TestModel } from "./models.fixture.js";

let model: TestModel;
let engine: GrammarEngine;

before(async () => {
  model = await smallModel();
  engine = engineOf(model);
});
after(() => engine.close());

const accepted = (spec: ConstraintSpec, texts: string[]) =>
  acceptedBy(engine, model, { spec, texts });

const whole = { type: "integer" };

for (const name of ['a"b', "a\\b", "a\nb"])
  test(`a free key beside the name ${JSON.stringify(name)}: no character goes in without its escape`, async () => {
    const spec = jsonSchema({ properties: { [name]: whole }, additionalProperties: whole });
    const raw = `{"a${name.slice(1, 2)}x":1}`;
    const good = ['{"a":1}', `{${JSON.stringify(name)}:1}`];
    assert.deepEqual(await accepted(spec, [raw, ...good]), good);
  });

test("minProperties beside free keys: a key that comes twice counts once", async () => {
  const spec = jsonSchema({
    type: "object",
    properties: { a: whole, b: whole },
    additionalProperties: whole,
    minProperties: 2,
  });
  const good = ['{"a":1,"x":1}', '{"a":1,"b":1}', '{"a":1,"b":1,"x":1,"x":2}'];
  assert.deepEqual(await accepted(spec, ['{"x":1,"x":1}', '{"a":1}', ...good]), good);
});

test("a multiple between bounds beyond 10¹⁵: refused, not counted without end", async () => {
  const spec = jsonSchema({ type: "number", multipleOf: 2, minimum: 1e300, maximum: 1e300 });
  await assert.rejects(engine.compile(spec, FIELD), /never be satisfied/);
});

const REFUSED: [string, ConstraintSpec, RegExp][] = [
  [
    "a pattern of keys that are forbidden beside one of keys that are not",
    jsonSchema({ type: "object", patternProperties: { "^a": whole, b$: false } }),
    /#\/patternProperties: /,
  ],
  [
    "prefixItems in draft 7, which does not have it",
    jsonSchema({
      $schema: "http://json-schema.org/draft-07/schema#",
      properties: { a: { prefixItems: [{ type: "string" }], items: whole } },
    }),
    /#\/properties\/a\/prefixItems: .*draft/,
  ],
  [
    "minContains in draft 7, which does not have it",
    jsonSchema({
      $schema: "http://json-schema.org/draft-07/schema#",
      type: "array",
      contains: { const: 1 },
      minContains: 0,
    }),
    /#\/minContains: .*draft/,
  ],
  [
    "a property __proto__ where no others may be, which Ajv takes for one of the others",
    jsonSchema('{"properties":{"__proto__":{"type":"integer"}},"additionalProperties":false}'),
    /#\/additionalProperties: /,
  ],
  ["half a surrogate pair in a regex", { kind: "regex", pattern: "\\ud800" }, /surrogate/],
  ["half a surrogate pair in EBNF", { kind: "grammar", ebnf: 'root ::= "\\ud800"' }, /surrogate/],
  [
    "half a surrogate pair in a structural tag",
    {
      kind: "structural_tag",
      tag: JSON.stringify({
        type: "structural_tag",
        format: { type: "const_string", value: "\ud800" },
      }),
    },
    /#\/format\/value: .*surrogate/,
  ],
];

for (const [name, spec, message] of REFUSED)
  test(`${name}: refused`, async () => {
    await assert.rejects(engine.compile(spec, FIELD), message);
  });

test("an enum beside a format: a text that is not of the format never comes", async () => {
  const spec = jsonSchema({ enum: ["today", "2024-01-31", 7], format: "date" });
  const found = await accepted(spec, ['"today"', '"2024-01-31"', "7"]);
  assert.deepEqual(found, ['"2024-01-31"', "7"]);
  const other = jsonSchema({ const: "/a", format: "json-pointer" });
  await assert.rejects(engine.compile(other, FIELD), /#\/format: json-pointer/);
});

test("propertyNames with a format: a named property that is not of it never comes", async () => {
  const spec = jsonSchema({ properties: { day: whole }, propertyNames: { format: "date" } });
  assert.deepEqual(await accepted(spec, ['{"day":1}', "{}"]), ["{}"]);
});

test("$async in a schema: a word of the validator's own, without effect", async () => {
  const spec = jsonSchema({ $async: true, enum: ["a", 2], type: "string" });
  assert.deepEqual(await accepted(spec, ['"a"', "2"]), ['"a"']);
});

test("\\xHH in EBNF: two digits, whatever follows", async () => {
  const found = await accepted({ kind: "grammar", ebnf: 'root ::= "\\x41bc"' }, ["Abc", "䆼"]);
  assert.deepEqual(found, ["Abc"]);
});

const ILL_FORMED: [string, number[]][] = [
  ["a surrogate", [0xed, 0xa0, 0x80]],
  ["two bytes for an ASCII character", [0xc1, 0x80]],
  ["three bytes for a short character", [0xe0, 0x80, 0x80]],
  ["four bytes for a short character", [0xf0, 0x80, 0x80, 0x80]],
  ["what is beyond U+10FFFF", [0xf4, 0x90, 0x80, 0x80]],
  ["a byte that begins nothing", [0xf5, 0x80, 0x80, 0x80]],
];

/** Whether a string of these bytes may come, a token each. */
async function takesBytes(spec: ConstraintSpec, bytes: number[]): Promise<boolean> {
  const { tokenizer } = model;
  const ids = Array.from({ length: tokenizer.size }, (_, id) => id);
  const grammar = await engine.compile(spec, FIELD);
  const matcher = grammar.open();
  await matcher.ready;
  let ok = true;
  for (const byte of [0x22, ...bytes, 0x22]) {
    const id = ids.find((each) => {
      const own = tokenizer.tokenBytes(each);
      return !tokenizer.isSpecial(each) && own.length === 1 && own[0] === byte;
    });
    const at = id ?? assert.fail(`no token of byte ${byte}`);
    ok &&= (((matcher.mask?.[at >> 3] ?? 0) >> (at & 7)) & 1) === 1;
    if (!ok) break;
    matcher.accept(at);
    await matcher.ready;
  }
  matcher.close();
  grammar.close();
  return ok;
}

for (const [name, bytes] of ILL_FORMED)
  test(`${name}: never comes, it would be read as several U+FFFD`, async () => {
    const spec = jsonSchema({ type: "string", maxLength: 1 });
    assert.equal(await takesBytes(spec, bytes), false);
    assert.equal(await takesBytes(spec, [...Buffer.from("é")]), true);
    assert.equal(await takesBytes(spec, [...Buffer.from("\ud7ff")]), true);
    assert.equal(await takesBytes(spec, [...Buffer.from("😀")]), true);
  });
