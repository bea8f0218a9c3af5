/** Calls in an answer's text, whatever tokens it comes in. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { CallParser } from "./call-parser.js";
import { PLAIN } from "./choice-settings.fixture.js";
import { createChoiceText, type ChoiceSettings } from "./choice-text.js";
import { loadTokenizer } from "./tokenizer.js";
import type { TextPiece, ToolCallPiece } from "./types.js";

const tokenizer = await loadTokenizer(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);

interface Call {
  name: string;
  arguments: string;
}

/** The first piece of a call has its id and name, all have their index, in order. */
function joined(pieces: ToolCallPiece[]): Call[] {
  const calls: Call[] = [];
  for (const { index, id, name, arguments: text } of pieces) {
    const known = calls[index];
    assert.equal(id !== "", known === undefined, "an id comes once");
    assert.equal(name !== "", known === undefined, "a name comes once");
    if (known === undefined) assert.equal(index, calls.push({ name, arguments: text }) - 1);
    else known.arguments += text;
  }
  return calls;
}

/** Reads a text cut at these places. */
function parse(text: string, cuts: number[] = [], last = Infinity) {
  let ids = 0;
  const parser = new CallParser(() => `call_${ids++}`, last);
  const places = [0, ...cuts, text.length];
  const parts = places.slice(1).map((end, i) => parser.push(text.slice(places[i], end)));
  parts.push(parser.end());
  const content = parts.map((part) => part.content).join("");
  return { content, calls: joined(parts.flatMap((part) => part.toolCalls)) };
}

const call = (name: string, args: string) =>
  `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`;
const f = { name: "f", arguments: '{"a": 1}' };
const F = call("f", '{"a": 1}');

const rows: [name: string, text: string, content: string, calls: Call[]][] = [
  ["text alone", "Hello, <b>you</b>.", "Hello, <b>you</b>.", []],
  ["nothing", "", "", []],
  ["one call", F, "", [f]],
  ["text and a call", `Let me look.\n${F}`, "Let me look.", [f]],
  ["a text whose lines go on", `a\n\n${F}`, "a\n", [f]],
  ["two calls", `${F}\n${call("g", "{}")}`, "", [f, { name: "g", arguments: "{}" }]],
  ["two calls in one line", `${F}${F}`, "", [f, f]],
  ["white space between and behind", `${F}\n \n${F}\n`, "", [f, f]],
  ["text behind a call", `${F}\nDone.`, "\nDone.", [f]],
  ["a call without its end tag", F.slice(0, F.indexOf("\n</")), "", [f]],
  ["a call cut inside its end tag", F.slice(0, -3), "", [f]],
  ["a call without an end before another", `${F.slice(0, F.indexOf("</"))}${F}`, "", [f, f]],
  [
    "no space at all",
    '<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>',
    "",
    [{ name: "f", arguments: '{"a":1}' }],
  ],
  [
    "arguments before the name",
    '<tool_call>\n{"arguments": {"a": [1, {}]}, "name": "f"}\n</tool_call>',
    "",
    [{ name: "f", arguments: '{"a":[1,{}]}' }],
  ],
  [
    "another key",
    '<tool_call>\n{"id": 7, "name": "f", "arguments": {}}\n</tool_call>',
    "",
    [{ name: "f", arguments: "{}" }],
  ],
  [
    "tags and braces in a text of the arguments",
    call("f", '{"a": "</tool_call>}<tool_call> \\" \\u00e9"}'),
    "",
    [{ name: "f", arguments: '{"a": "</tool_call>}<tool_call> \\" \\u00e9"}' }],
  ],
  [
    "a name behind a thousand spaces",
    call("f", '{"a": 1}').replace("{", "{" + " ".repeat(1100)),
    "",
    [{ name: "f", arguments: '{"a":1}' }],
  ],
  ["a name of an escape", call("\\u0066", "{}"), "", [{ name: "f", arguments: "{}" }]],
  ["no JSON", "a <tool_call>\nf(1)\n</tool_call>", "a <tool_call>\nf(1)\n</tool_call>", []],
  ["a tag alone", "<tool_call>", "<tool_call>", []],
  ["half a tag", "a\n<tool_ca", "a\n<tool_ca", []],
  ["a tag of another kind", "<tool_response>x", "<tool_response>x", []],
  [
    "a header that ends",
    'x<tool_call>\n{"name": "f", "arg',
    'x<tool_call>\n{"name": "f", "arg',
    [],
  ],
  ["no name", call("", "{}"), call("", "{}"), []],
  ["a name with a space", call("a b", "{}"), call("a b", "{}"), []],
  ["arguments that are a text", call("f", '"{}"'), call("f", '"{}"'), []],
  ["arguments that are a list", call("f", "[1]"), call("f", "[1]"), []],
  [
    "no arguments",
    '<tool_call>\n{"name": "f"}\n</tool_call>',
    '<tool_call>\n{"name": "f"}\n</tool_call>',
    [],
  ],
  ["a list of calls", `<tool_call>\n[${F}]`, `<tool_call>\n[]`, [f]],
  ["a tag before a tag", `<tool_call>\n${F}`, "<tool_call>\n", [f]],
  [
    "a bad call, then a good one",
    `<tool_call>x</tool_call>\n${F}`,
    "<tool_call>x</tool_call>",
    [f],
  ],
  ["a bad call behind a good one", `${F}\n<tool_call>x`, "\n<tool_call>x", [f]],
  [
    "JSON that goes wrong in the arguments",
    call("f", '{"a": 1,}'),
    "}}\n</tool_call>",
    [{ name: "f", arguments: '{"a": 1,' }],
  ],
  [
    "a line's end inside a string",
    call("f", '{"a": "x\ny"}'),
    '\ny"}}\n</tool_call>',
    [{ name: "f", arguments: '{"a": "x' }],
  ],
  [
    "arguments that are cut",
    '<tool_call>\n{"name": "f", "arguments": {"a": "x',
    "",
    [{ name: "f", arguments: '{"a": "x' }],
  ],
  [
    "a key behind the arguments",
    '<tool_call>\n{"name": "f", "arguments": {}, "id": 1}\n</tool_call>',
    ', "id": 1}\n</tool_call>',
    [{ name: "f", arguments: "{}" }],
  ],
];
for (const [name, text, content, calls] of rows)
  test(`calls: ${name}: the same at every cut`, () => {
    const whole = { content, calls };
    assert.deepEqual(parse(text), whole);
    for (let cut = 0; cut <= text.length; cut++) assert.deepEqual(parse(text, [cut]), whole);
    assert.deepEqual(parse(text, Array.from(text, (_, i) => i).slice(1)), whole);
  });

const scraps = fc.constantFrom(
  ...'<tool_call>|</tool_call>|\n|{|}|[|]|:|,|"|\\|"name"|"f"|"arguments"|1|true|x| |é|<'.split(
    "|",
  ),
  F,
  '{"name": "f", "arguments": {',
);
const noise = fc.array(scraps, { maxLength: 14 }).map((list) => list.join(""));

test("calls: any text cut anywhere gives the same content and calls", () => {
  const cutText = noise.chain((text) =>
    fc.tuple(
      fc.constant(text),
      fc.uniqueArray(fc.integer({ min: 0, max: text.length }), { maxLength: 12 }),
      fc.constantFrom(1, 2, Infinity),
    ),
  );
  fc.assert(
    fc.property(cutText, ([text, cuts, last]) => {
      const sorted = cuts.sort((a, b) => a - b);
      assert.deepEqual(parse(text, sorted, last), parse(text, [], last));
    }),
    { numRuns: 20_000 },
  );
});

test("calls: no piece of content has half a tag of a call that comes", () => {
  for (let cut = 0; cut <= 30; cut++) {
    const parser = new CallParser(() => "id", Infinity);
    const text = `ab\n${F}`;
    const first = parser.push(text.slice(0, cut));
    assert.ok("ab".startsWith(first.content), first.content);
    parser.push(text.slice(cut));
  }
});

const json = fc.dictionary(fc.string(), fc.jsonValue()).map((value) => JSON.stringify(value));
test("calls: any arguments come back as they are written", () => {
  fc.assert(
    fc.property(fc.array(json, { minLength: 1, maxLength: 3 }), (list) => {
      const text = list.map((args) => call("f", args)).join("\n");
      const cuts = Array.from({ length: text.length - 1 }, (_, i) => i + 1);
      const calls = list.map((args) => ({ name: "f", arguments: args }));
      assert.deepEqual(parse(text, cuts), { content: "", calls });
    }),
    { numRuns: 300 },
  );
});

const bytes = Array.from({ length: 256 }, (_, byte) => {
  const ids = Array.from({ length: tokenizer.size }, (_, id) => id);
  const found = ids.find((id) => {
    const text = tokenizer.tokenBytes(id);
    return text.length === 1 && text[0] === byte;
  });
  return found ?? assert.fail(`no token for byte ${byte}`);
});
const END = tokenizer.specialId("<|im_end|>");

function write(ids: number[], change: Partial<ChoiceSettings>) {
  const settings = { ...PLAIN, tools: { parallel: true }, stopTokenIds: [END], ...change };
  const choice = createChoiceText(settings, tokenizer);
  const pieces: TextPiece[] = [];
  for (const tokenId of ids) {
    pieces.push(choice.push({ tokenId, logprob: undefined, top: [] }));
    if (pieces.at(-1)?.finish !== undefined) break;
  }
  if (pieces.at(-1)?.finish === undefined) pieces.push(choice.end({ reason: "aborted" }));
  return {
    pieces,
    content: pieces.map(({ text }) => text).join(""),
    calls: joined(pieces.flatMap(({ toolCalls = [] }) => toolCalls)),
    tokens: pieces.flatMap(({ tokens }) => tokens.map(({ tokenId }) => tokenId)),
    finish: pieces.at(-1)?.finish,
  };
}
const inBytes = (text: string) => [...Buffer.from(text)].map((byte) => bytes[byte] ?? 0);

test("tool text: tags as added tokens or byte by byte are the same call", () => {
  const text = `é\n${F}`;
  for (const ids of [tokenizer.encode(text, { special: true }), inBytes(text)]) {
    const { content, calls, tokens, finish } = write([...ids, END], {});
    assert.deepEqual([content, calls], ["é", [f]]);
    assert.deepEqual(tokens, [...ids, END]);
    assert.deepEqual(finish, { reason: "tool_calls", stopTokenId: END });
  }
});

test("tool text: a call is named first, and its arguments come piece by piece", () => {
  const { pieces } = write(inBytes(F), {});
  const shown = pieces.flatMap(({ toolCalls = [] }) => toolCalls);
  assert.match(shown[0]?.id ?? "", /^call_[0-9a-f]{24}$/);
  assert.deepEqual(
    shown.map(({ name }) => name),
    ["f", ...Array<string>(shown.length - 1).fill("")],
  );
  assert.equal(shown.length, f.arguments.length);
});

test("tool text: without parallel calls the first ends the answer", () => {
  const { content, calls, finish } = write(inBytes(`${F}\n${F}`), { tools: { parallel: false } });
  assert.deepEqual([content, calls, finish], ["", [f], { reason: "tool_calls" }]);
});

test("tool text: an answer cut by its length says so, whatever calls it has", () => {
  const ids = inBytes(F);
  const { calls, finish } = write(ids, { maxTokens: ids.length - 14 });
  assert.deepEqual([calls, finish], [[f], { reason: "length" }]);
});

test("tool text: text alone ends as without tools", () => {
  const { content, finish } = write([...inBytes("a <b"), END], {});
  assert.deepEqual([content, finish], ["a <b", { reason: "stop", stopTokenId: END }]);
});

test("tool text: without tools a call is text", () => {
  const { content, calls } = write([...inBytes(F), END], { tools: undefined });
  assert.deepEqual([content, calls], [F, []]);
});
