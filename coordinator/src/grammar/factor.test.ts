import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ConstraintSpec } from "../request/constraint.js";
import { acceptedBy, jsonSchema } from "./accepted.fixture.js";
import { writeGrammar } from "./ebnf-text.js";
import { alt, text } from "./expression.js";
import type { GrammarEngine } from "./index.js";
import { engineOf, smallModel, type TestModel } from "./models.fixture.js";
import { seeded } from "./walker.fixture.js";
import { loadXGrammar } from "./xgrammar.js";

let model: TestModel;
let engine: GrammarEngine;

before(async () => {
  model = await smallModel();
  engine = engineOf(model, { keptPerTenant: 500, kept: 500 });
});
after(() => engine.close());

const accepted = (spec: ConstraintSpec, texts: string[]) =>
  acceptedBy(engine, model, { spec, texts });

test("alternatives that begin alike and end alike: no mixture of two passes", async () => {
  const words = ["bad", "red", "rex"];
  const mixed = [...words, "bax", "rad", "be"];
  const quoted = (list: string[]) => list.map((each) => JSON.stringify(each));
  assert.deepEqual(await accepted({ kind: "choice", texts: words }, mixed), words);
  assert.deepEqual(await accepted({ kind: "regex", pattern: "bad|red|rex" }, mixed), words);
  assert.deepEqual(await accepted(jsonSchema({ enum: words }), quoted(mixed)), quoted(words));
  const ebnf = 'root ::= a | b | c\na ::= "bad"\nb ::= "red"\nc ::= "rex"\n';
  assert.deepEqual(await accepted({ kind: "grammar", ebnf }, mixed), words);
  const elements = words.map((value) => ({ type: "const_string", value }));
  const tag = JSON.stringify({ type: "structural_tag", format: { type: "or", elements } });
  assert.deepEqual(await accepted({ kind: "structural_tag", tag }, mixed), words);
});

test("alternatives beyond ASCII that share bytes: no mixture of two passes", async () => {
  const texts = ["乀", "一", "丁"];
  assert.deepEqual(await accepted({ kind: "choice", texts }, [...texts, "\u4e41"]), texts);
  const pattern = "[乀一丁]+x|[à-ü]";
  const found = await accepted({ kind: "regex", pattern }, ["乀一x", "\u4e41x", "é", "þ", "乀"]);
  assert.deepEqual(found, ["乀一x", "é"]);
});

test("a class with characters beyond ASCII and others: what follows it follows each of them", async () => {
  const spec: ConstraintSpec = { kind: "regex", pattern: "b[aé]c" };
  assert.deepEqual(await accepted(spec, ["ba", "bac", "béc", "bé"]), ["bac", "béc"]);
});

test("integer bounds: every number is on its side, at the edges and far off", async () => {
  const random = seeded(5);
  for (let i = 0; i < 20; i++) {
    const [a, b] = [1, 2].map(() => Math.floor((random() - 0.5) * 10 ** (1 + random() * 5)));
    const [minimum, maximum] = [Math.min(a ?? 0, b ?? 0), Math.max(a ?? 0, b ?? 0)];
    const near = [minimum, maximum].flatMap((edge) => [edge - 1, edge, edge + 1, -edge, edge * 10]);
    const far = Array.from({ length: 20 }, () =>
      Math.floor((random() - 0.5) * 10 ** (7 * random())),
    );
    const values = [...new Set([...near, ...far].map((value) => value + 0))];
    const bounds: [object, (value: number) => boolean][] = [
      [{ minimum }, (value) => value >= minimum],
      [{ maximum }, (value) => value <= maximum],
      [{ minimum, maximum }, (value) => value >= minimum && value <= maximum],
    ];
    for (const [bound, holds] of bounds) {
      const found = await accepted(jsonSchema({ type: "integer", ...bound }), values.map(String));
      assert.deepEqual(found, values.filter(holds).map(String), JSON.stringify(bound));
    }
  }
});

test("random sets of words: those pass and no other word of their letters", async () => {
  const random = seeded(11);
  const all = ["a", "b", "c"].flatMap((first) =>
    ["", "a", "b", "c"].flatMap((second) => ["", "a", "b"].map((third) => first + second + third)),
  );
  const words = [...new Set(all)];
  for (let round = 0; round < 20; round++) {
    const texts = words.filter(() => random() < 0.3).sort(() => random() - 0.5);
    const found = await accepted({ kind: "choice", texts: [...texts, "aabb"] }, words);
    assert.deepEqual(found.sort(), [...texts].sort(), texts.join(" "));
  }
});

test("XGrammar alone takes the mixture, the reason why beginnings are told apart", async () => {
  const { library } = await loadXGrammar(256 * 1024 * 1024);
  const letters = ["a", "b", "d", "e", "r", "x", "</s>"];
  const info = await library.TokenizerInfo.createTokenizerInfo(letters, "raw", false, 7, [6]);
  const compiler = await library.GrammarCompiler.createGrammarCompiler(info, false);
  const takes = async (ebnf: string) => {
    const compiled = await compiler.compileGrammar(ebnf);
    const matcher = await library.GrammarMatcher.createGrammarMatcher(compiled, [6], false);
    return [..."bax"].every((letter) => matcher.acceptToken(letters.indexOf(letter)));
  };
  assert.equal(await takes('root ::= "bad" | "red" | "rex"'), true);
  const { ebnf } = writeGrammar(alt(...["bad", "red", "rex"].map(text)), []);
  assert.equal(await takes(ebnf), false);
});
