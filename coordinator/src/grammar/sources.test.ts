import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ConstraintSpec } from "../request/constraint.js";
import type { GrammarEngine } from "./index.js";
import { engineOf, FIELD, smallModel, type TestModel } from "./models.fixture.js";
import { accepts, walk } from "./walker.fixture.js";

let model: TestModel;
let engine: GrammarEngine;

before(async () => {
  model = await smallModel();
  engine = engineOf(model, { keptPerTenant: 100 });
});
after(() => engine.close());

const tag = (format: unknown): ConstraintSpec => ({
  kind: "structural_tag",
  tag: JSON.stringify({ type: "structural_tag", format }),
});
const call = (name: string) => ({
  type: "tag",
  begin: `<f=${name}>`,
  content: {
    type: "json_schema",
    json_schema: {
      type: "object",
      properties: { n: { type: "integer", maximum: 9 } },
      required: ["n"],
    },
  },
  end: "</f>",
});

interface Case {
  name: string;
  spec: ConstraintSpec;
  good: string[];
  bad: string[];
}

const CASES: Case[] = [
  {
    name: "json_object",
    spec: { kind: "json_object" },
    good: ["{}", '{"a": [1, {"b": null}]}'],
    bad: ["[]", "1", "{", "{} "],
  },
  {
    name: "regex: the whole answer",
    spec: { kind: "regex", pattern: "[ab]{2,3}|x" },
    good: ["ab", "aba", "x"],
    bad: ["a", "abab", "xx", ""],
  },
  {
    name: "regex: anchors at the ends change nothing",
    spec: { kind: "regex", pattern: "^(?:a|b)$" },
    good: ["a"],
    bad: ["ab"],
  },
  {
    name: "regex: dot is no line end",
    spec: { kind: "regex", pattern: "a.c" },
    good: ["abc", "aéc", 'a"c', "a😀c"],
    bad: ["a\nc", "a\u2028c", "ac"],
  },
  {
    name: "regex: a range beyond ASCII",
    spec: { kind: "regex", pattern: "[à-ü]+" },
    good: ["é", "àü"],
    bad: ["a", "ÿ", "ß"],
  },
  {
    name: "regex: all but a character beyond ASCII",
    spec: { kind: "regex", pattern: "[^é]{2}" },
    good: ["ab", "è€"],
    bad: ["aé", "é", "a"],
  },
  {
    name: "regex: classes by name",
    spec: { kind: "regex", pattern: "\\d\\w\\s\\D\\W\\S" },
    good: ["1_\t-é€"],
    bad: ["1_\t1é€", "1_\t-é\u3000"],
  },
  {
    name: "regex: escapes and counts",
    spec: { kind: "regex", pattern: "\\u{1f600}\\x41(?:\\.\\*){2,}b?" },
    good: ["😀A.*.*", "😀A.*.*.*b"],
    bad: ["😀A.*"],
  },
  {
    name: "choice: taken literally",
    spec: { kind: "choice", texts: ['say "hi"', "a|b", "[a-z]\\n", "né\n😀", "a"] },
    good: ['say "hi"', "a|b", "[a-z]\\n", "né\n😀", "a"],
    bad: ["b", "say", "n"],
  },
  {
    name: "choice: the empty text among them",
    spec: { kind: "choice", texts: ["", "no"] },
    good: ["", "no"],
    bad: ["n"],
  },
  {
    name: "grammar: rules, groups, counts, comments",
    spec: {
      kind: "grammar",
      ebnf: '# sums\nroot ::= term (op term){0,2} # two at most\nterm ::= [0-9]+ | "(" root ")"\nop ::= [+\\-*]',
    },
    good: ["1", "1+22*(3)", "(1-2)"],
    bad: ["1+", "1+2+3+4", "()"],
  },
  {
    name: "grammar: classes beyond ASCII and escapes",
    spec: { kind: "grammar", ebnf: 'root ::= [à-ÿ]+ "\\x41\\u00e9\\U0001F600" [^\\n]?' },
    good: ["éAé😀", "àA\u00e9😀€"],
    bad: ["zAé😀", "éAé😀\n"],
  },
  {
    name: "grammar: right recursion and empty ways",
    spec: { kind: "grammar", ebnf: 'root ::= "a" root "b" | ""' },
    good: ["", "ab", "aabb"],
    bad: ["aab", "ba"],
  },
  {
    name: "grammar: a way that leads nowhere is left out",
    spec: { kind: "grammar", ebnf: 'root ::= "a" | "b" never\nnever ::= "x" never' },
    good: ["a"],
    bad: ["b"],
  },
  {
    name: "structural tag: one of two calls",
    spec: tag({ type: "or", elements: [call("a"), call("b")] }),
    good: ['<f=a>{"n":1}</f>', '<f=b>{"n": -3}</f>'],
    bad: ['<f=c>{"n":1}</f>', '<f=a>{"n":10}</f>', "free"],
  },
  {
    name: "structural tag: free text until a trigger",
    spec: tag({ type: "triggered_tags", triggers: ["<f="], tags: [call("a")] }),
    good: ["free", 'so: <f=a>{"n":1}</f> done'],
    bad: ["so: <f=x", '<f=a>{"n":10}</f>'],
  },
  {
    name: "structural tag: the older form",
    spec: {
      kind: "structural_tag",
      tag: JSON.stringify({
        structures: [{ begin: "<f=a>", schema: { type: "boolean" }, end: "</f>" }],
        triggers: ["<f="],
      }),
    },
    good: ["x <f=a>true</f>"],
    bad: ["<f=a>1</f>"],
  },
  {
    name: "structural tag: sequence of text, pattern and grammar",
    spec: tag({
      type: "sequence",
      elements: [
        { type: "const_string", value: "é: " },
        { type: "regex", pattern: "[0-9]{2}" },
        { type: "grammar", grammar: 'root ::= "x" | "y"' },
      ],
    }),
    good: ["é: 12x"],
    bad: ["é: 1x", "é: 12z"],
  },
  {
    name: "structural tag: tags with a separator",
    spec: tag({
      type: "tags_with_separator",
      tags: [call("a"), call("b")],
      separator: "\n",
      at_least_one: true,
    }),
    good: ['<f=a>{"n":1}</f>', '<f=a>{"n":1}</f>\n<f=b>{"n":2}</f>'],
    bad: ["", '<f=a>{"n":1}</f><f=b>{"n":2}</f>'],
  },
];

for (const { name, spec, good, bad } of CASES)
  test(`${name}: what it says passes, nothing else`, async () => {
    const grammar = await engine.compile(spec, FIELD);
    const { tokenizer, stopIds } = model;
    const found = [];
    for (const text of [...good, ...bad])
      found.push([text, await accepts(grammar, text, { tokenizer, stopIds })]);
    grammar.close();
    const wanted = [...good.map((text) => [text, true]), ...bad.map((text) => [text, false])];
    assert.deepEqual(found, wanted);
  });

test("regex with a forbidden character: never drawn, though its bytes are spread over tokens", async () => {
  const grammar = await engine.compile({ kind: "regex", pattern: "[^é-ü\\x00-\\x7f]{40}" }, FIELD);
  const { tokenizer, stopIds } = model;
  for (let seed = 0; seed < 12; seed++) {
    const drawn = await walk(grammar, { tokenizer, stopIds, seed, lengthMax: 400 });
    assert.equal(drawn.failure, undefined);
    assert.doesNotMatch(drawn.text, /[é-ü]/);
  }
  grammar.close();
});

test("regex: whatever is drawn matches, as JavaScript sees it", async () => {
  const patterns = [
    "(?:[a-c]|\\d{2})+z?",
    "\\S+@\\S+\\.[a-z]{2,3}",
    "(?:.|\\n){1,9}",
    "[\\w.-]{3,}",
    "(a(b(c)?)?)*",
  ];
  const { tokenizer, stopIds } = model;
  for (const pattern of patterns) {
    const grammar = await engine.compile({ kind: "regex", pattern }, FIELD);
    for (let seed = 0; seed < 6; seed++) {
      const drawn = await walk(grammar, { tokenizer, stopIds, seed, lengthMax: 80 });
      assert.equal(drawn.failure, undefined);
      const whole = new RegExp(`^(?:${pattern})$`, "u").test(drawn.text);
      assert.equal(whole || !drawn.ended, true, `${pattern}: ${JSON.stringify(drawn.text)}`);
    }
    grammar.close();
  }
});
