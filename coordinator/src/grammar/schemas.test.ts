import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { GrammarEngine } from "./index.js";
import { engineOf, FIELD, largeModel, smallModel, type TestModel } from "./models.fixture.js";
import { SCHEMAS } from "./schemas.fixture.js";
import { walk, type Walk } from "./walker.fixture.js";

const LENGTH_MAX = 600;
const SEEDS = [1, 2];

let model: TestModel;
let engine: GrammarEngine;

before(async () => {
  model = await smallModel();
  engine = engineOf(model);
});
after(() => engine.close());

function validatorOf(schema: object | boolean): (value: unknown) => boolean {
  const old = typeof schema === "object" && "$schema" in schema;
  const ajv = old
    ? new Ajv({ strict: false })
    : new Ajv2020({ strict: false, validateFormats: false });
  return ajv.compile(schema);
}

async function walks(of: TestModel, using: GrammarEngine, name: string, seeds: number[]) {
  const schema = SCHEMAS[name] ?? false;
  const spec = { kind: "json_schema" as const, schema: JSON.stringify(schema) };
  const grammar = await using.compile(spec, FIELD);
  const { tokenizer, stopIds } = of;
  const all: Walk[] = [];
  for (const seed of seeds)
    all.push(await walk(grammar, { tokenizer, stopIds, seed, lengthMax: LENGTH_MAX }));
  grammar.close();
  return all;
}

const endedByName = new Map<string, number>();

for (const name of Object.keys(SCHEMAS))
  test(`${name}: what is drawn at random parses and validates, unless cut`, async () => {
    const validate = validatorOf(SCHEMAS[name] ?? false);
    const all = await walks(model, engine, name, SEEDS);
    assert.deepEqual(
      all.map(({ failure }) => failure),
      SEEDS.map(() => undefined),
    );
    const ended = all.filter((each) => each.ended);
    endedByName.set(name, ended.length);
    for (const { text } of ended) assert.ok(validate(JSON.parse(text)), text);
    for (const cut of all.filter((each) => !each.ended))
      assert.equal(cut.tokens.length, LENGTH_MAX);
  });

test("of 60 schemas and more, at least five in six end by themselves every time", () => {
  const names = [...endedByName.keys()];
  assert.ok(names.length >= 60, `${names.length} schemas`);
  const always = names.filter((name) => endedByName.get(name) === SEEDS.length);
  assert.ok(always.length >= (names.length * 5) / 6, `${always.length} of ${names.length}`);
});

test("a vocabulary of 151,936 ids: the same holds, and padded ids are never allowed", async () => {
  const large = await largeModel();
  const big = engineOf(large);
  try {
    for (const name of ["nested person", "tagged shapes", "tree", "umlauts"]) {
      const validate = validatorOf(SCHEMAS[name] ?? false);
      const [only] = await walks(large, big, name, [3]);
      assert.equal(only?.failure, undefined);
      assert.equal(only?.ended, true, name);
      assert.ok(validate(JSON.parse(only?.text ?? "")), only?.text);
      assert.ok(only?.tokens.every((id) => id < large.tokenizer.size));
    }
  } finally {
    await big.close();
  }
});
