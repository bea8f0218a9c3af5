import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import type { GrammarEngine } from "./index.js";
import { KEYWORD_CASES, type KeywordCase } from "./keywords.fixture.js";
import { engineOf, FIELD, smallModel, type TestModel } from "./models.fixture.js";
import { accepts } from "./walker.fixture.js";
import { loadXGrammar, type XGrammar } from "./xgrammar.js";

let model: TestModel;
let engine: GrammarEngine;
let library: XGrammar;

before(async () => {
  model = await smallModel();
  engine = engineOf(model, { keptPerTenant: 200, kept: 200 });
  ({ library } = await loadXGrammar(256 * 1024 * 1024));
});
after(() => engine.close());

/** Whether all good values pass and no bad one does. */
async function judge(of: KeywordCase, passes: (text: string) => Promise<boolean>) {
  const wrong: string[] = [];
  for (const value of of.good ?? [])
    if (!(await passes(JSON.stringify(value)))) wrong.push(`refuses ${JSON.stringify(value)}`);
  for (const value of of.bad ?? [])
    if (await passes(JSON.stringify(value))) wrong.push(`accepts ${JSON.stringify(value)}`);
  return wrong;
}

for (const each of KEYWORD_CASES.filter(({ refused }) => refused === undefined))
  test(`${each.keyword}: what is valid passes, what is not does not`, async () => {
    const spec = { kind: "json_schema" as const, schema: JSON.stringify(each.schema) };
    const grammar = await engine.compile(spec, FIELD);
    const { tokenizer, stopIds } = model;
    const wrong = await judge(each, (text) => accepts(grammar, text, { tokenizer, stopIds }));
    grammar.close();
    assert.deepEqual(wrong, []);
  });

for (const each of KEYWORD_CASES.filter(({ refused }) => refused !== undefined))
  test(`${each.keyword}: refused at ${each.refused ?? ""}`, async () => {
    const spec = { kind: "json_schema" as const, schema: JSON.stringify(each.schema) };
    await assert.rejects(engine.compile(spec, FIELD), (error: Error & { code?: string }) => {
      assert.equal(error.code, "INVALID_ARGUMENT");
      assert.ok(error.message.startsWith(`response_format: ${each.refused ?? ""}`), error.message);
      return true;
    });
  });

async function converterOf(each: KeywordCase): Promise<KeywordCase["xgrammar"]> {
  try {
    const schema = JSON.stringify(each.schema);
    const grammar = await library.Grammar.fromJSONSchema(schema, true, undefined, undefined, true);
    const wrong = await judge(each, (text) =>
      library.Testings.isGrammarAcceptString(grammar, text),
    );
    if (wrong.length > 0) return "wrong";
    return each.refused === undefined ? "right" : "silent";
  } catch {
    return "aborts";
  }
}

test("XGrammar's own converter: gets these keywords right and wrong, the reason for ours", async () => {
  const { version } = createRequire(import.meta.resolve("@mlc-ai/web-xgrammar"))(
    "../package.json",
  ) as { version: string };
  assert.equal(version, "0.1.27");
  const found: [string, string][] = [];
  for (const each of KEYWORD_CASES) found.push([each.keyword, await converterOf(each)]);
  assert.deepEqual(
    found,
    KEYWORD_CASES.map(({ keyword, xgrammar }) => [keyword, xgrammar]),
  );
});

test("XGrammar's character classes: wrong beyond ASCII, the reason why none is written so", async () => {
  const passes = async (ebnf: string, text: string) =>
    library.Testings.isGrammarAcceptString(await library.Grammar.fromEBNF(ebnf), text);
  assert.equal(await passes("root ::= [\\u00e0-\\u00ff]", "é"), false);
  assert.equal(await passes("root ::= [^\\u00e9]", "é"), true);
});
