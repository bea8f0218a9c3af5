/** Constraints, tools, calls and labels of a request: what is refused by name, and what comes of the rest. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { create, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import {
  GenerateRequestSchema,
  Role,
  ToolMode,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { REQUEST_LIMITS, type CheckContext } from "./check-context.js";
import { checkRequest } from "./check.js";
import { loadTokenizer } from "./tokenizer.js";

const tokenizer = await loadTokenizer(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);
const context: CheckContext = {
  servedName: "m",
  tokenizer,
  limits: REQUEST_LIMITS,
  maxModelLen: 4096,
  selectableIds: tokenizer.size,
  stopTokenIds: [7],
  defaultMaxTiles: 6,
  randomSeed: () => 7n,
};
type Init = MessageInitShape<typeof GenerateRequestSchema>;
const said = (role: Role, text: string, more: object = {}) => ({
  role,
  parts: [{ content: { case: "text" as const, value: text } }],
  ...more,
});
const ask = said(Role.USER, "Oslo?");
const check = (request: Init) =>
  checkRequest(create(GenerateRequestSchema, { messages: [ask], ...request }), context);

const SCHEMA = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
const f = { name: "f", description: "d", parameters: SCHEMA };
const g = { name: "g" };
const mode = (value: ToolMode) => ({ kind: { case: "mode" as const, value } });
const REQUIRED = mode(ToolMode.REQUIRED);
const named = (value: string) => ({ kind: { case: "name" as const, value } });
const regex = { kind: { case: "regex" as const, value: "a+" } };
const call = { id: "c1", name: "f", arguments: '{"a": 1}' };
const calls = (...toolCalls: object[]): Init => ({
  messages: [ask, said(Role.ASSISTANT, "", { toolCalls })],
});
const schema = (value: string): Init => ({ constraint: { kind: { case: "jsonSchema", value } } });
const choice = (texts: string[]): Init => ({
  constraint: { kind: { case: "choice", value: { texts } } },
});
const tooLong = "x".repeat(64 * 1024 + 1);
function nested(depth: number): JsonObject {
  return depth === 0 ? {} : { a: nested(depth - 1) };
}
const many = (count: number) => Array.from({ length: count }, (_, i) => ({ name: `f${i}` }));

const refused: [name: string, request: Init, field: string, message: RegExp][] = [
  ["an empty constraint", { constraint: {} }, "constraint", /is empty/],
  ["a schema of no bytes", schema(""), "constraint.json_schema", /has 0 bytes, must have 1…65536/],
  ["a schema that is no JSON", schema("{"), "constraint.json_schema", /is no JSON/],
  ["a schema that is a list", schema("[]"), "constraint.json_schema", /must be an object/],
  ["a schema too long", schema(`"${tooLong}"`), "constraint.json_schema", /has 65539 bytes/],
  [
    "json_object false",
    { constraint: { kind: { case: "jsonObject", value: false } } },
    "constraint.json_object",
    /is false, must be true/,
  ],
  [
    "a pattern too long",
    { constraint: { kind: { case: "regex", value: tooLong } } },
    "constraint.regex",
    /has 65537 bytes, must have 1…65536/,
  ],
  ["no choices", choice([]), "constraint.choice.texts", /has 0 texts, must have 1…1024/],
  [
    "1025 choices",
    choice(Array<string>(1025).fill("a")),
    "constraint.choice.texts",
    /1025 entries/,
  ],
  ["an empty choice", choice(["a", ""]), "constraint.choice.texts[1]", /has 0 characters/],
  ["a choice too long", choice(["a".repeat(257)]), "constraint.choice.texts[0]", /has 257 char/],
  [
    "an empty grammar",
    { constraint: { kind: { case: "grammar", value: "" } } },
    "constraint.grammar",
    /has 0 bytes/,
  ],
  [
    "a structural tag that is a flag",
    { constraint: { kind: { case: "structuralTag", value: "true" } } },
    "constraint.structural_tag",
    /must be an object/,
  ],
  ["a name with a space", { tools: [{ name: "a b" }] }, "tools[0].name", /is "a b", must be 1…64/],
  ["a name of 65", { tools: [{ name: "a".repeat(65) }] }, "tools[0].name", /must be 1…64/],
  ["a name twice", { tools: [g, f, g] }, "tools[2].name", /is "g", which is there twice/],
  ["129 tools", { tools: many(129) }, "tools", /have 129 entries, limit 128/],
  [
    "parameters of another type",
    { tools: [{ name: "f", parameters: { type: "array" } }] },
    "tools[0].parameters.type",
    /is "\\"array\\"", must be "object"/,
  ],
  [
    "parameters nested too deep",
    { tools: [{ name: "f", parameters: nested(33) }] },
    "tools[0].parameters",
    /nested deeper than 32/,
  ],
  ["tools too long", { tools: [{ name: "f", description: tooLong }] }, "tools", /limit 65536/],
  [
    "tools beside token ids",
    { messages: [], tokenIds: [1], tools: [g] },
    "tools",
    /beside token_ids/,
  ],
  ["required without tools", { toolChoice: REQUIRED }, "tool_choice", /there are no tools/],
  [
    "a tool that is not there",
    { tools: [g], toolChoice: named("f") },
    "tool_choice",
    /is "f", which/,
  ],
  ["no tools to name", { toolChoice: named("f") }, "tool_choice", /none of the 0 tools/],
  [
    "an unknown mode",
    { tools: [g], toolChoice: mode(9 as ToolMode) },
    "tool_choice",
    /is 9, must be auto/,
  ],
  [
    "a constraint beside required calls",
    { tools: [g], toolChoice: REQUIRED, constraint: regex },
    "constraint.regex",
    /lets calls alone be the answer/,
  ],
  [
    "a constraint beside a named tool",
    { tools: [g], toolChoice: named("g"), constraint: regex },
    "constraint.regex",
    /lets calls alone be the answer/,
  ],
  [
    "a structural tag beside tools",
    { tools: [g], constraint: { kind: { case: "structuralTag", value: "{}" } } },
    "constraint.structural_tag",
    /tool_choice must be none/,
  ],
  [
    "ignore_eos beside a constraint",
    { constraint: regex, stop: { ignoreEos: true } },
    "stop.ignore_eos",
    /is true beside constraint\.regex/,
  ],
  [
    "ignore_eos beside required calls",
    { tools: [g], toolChoice: REQUIRED, stop: { ignoreEos: true } },
    "stop.ignore_eos",
    /is true beside tools/,
  ],
  ["prompt_logprobs 21", { promptLogprobs: 21 }, "prompt_logprobs", /is 21, must be 0…20/],
  ["an empty salt", { cacheSalt: "" }, "cache_salt", /has 0 characters, must have 1…256/],
  ["a salt of 257", { cacheSalt: "s".repeat(257) }, "cache_salt", /has 257 characters/],
  [
    "17 metadata",
    { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, ""])) },
    "metadata",
    /have 17 entries, limit 16/,
  ],
  ["a key of 65", { metadata: { ["k".repeat(65)]: "" } }, "metadata", /65 characters, limit 64/],
  ["a value of 513", { metadata: { k: "v".repeat(513) } }, 'metadata["k"]', /has 513 char.*512/],
  ["going on with a user", { continueFinalMessage: true }, "continue_final_message", /assistant's/],
  [
    "going on with nothing",
    { messages: [], tokenIds: [1], continueFinalMessage: true },
    "continue_final_message",
    /is not the assistant's/,
  ],
  [
    "going on with calls",
    { ...calls(call), continueFinalMessage: true },
    "continue_final_message",
    /has tool_calls/,
  ],
  [
    "an unknown role",
    { messages: [said(9 as Role, "a")] },
    "messages[0].role",
    /is 9, must be system/,
  ],
  [
    "a result without id",
    { messages: [said(Role.TOOL, "1")] },
    "messages[0].tool_call_id",
    /missing/,
  ],
  [
    "a result of no call",
    { messages: [ask, said(Role.TOOL, "1", { toolCallId: "c1" })] },
    "messages[1].tool_call_id",
    /is "c1", which no earlier call/,
  ],
  [
    "a result before its call",
    { messages: [said(Role.TOOL, "1", { toolCallId: "c1" }), ...(calls(call).messages ?? [])] },
    "messages[0].tool_call_id",
    /which no earlier call/,
  ],
  [
    "an id in a user's message",
    { messages: [said(Role.USER, "1", { toolCallId: "c1" })] },
    "messages[0].tool_call_id",
    /not of role tool/,
  ],
  [
    "calls of a user",
    { messages: [said(Role.USER, "1", { toolCalls: [call] })] },
    "messages[0].tool_calls",
    /are in a message of role user/,
  ],
  ["a call without id", calls({ ...call, id: "" }), "messages[1].tool_calls[0].id", /has 0 char/],
  ["a call id twice", calls(call, call), "messages[1].tool_calls[1].id", /which was there before/],
  ["a call of no name", calls({ ...call, name: "" }), "messages[1].tool_calls[0].name", /is ""/],
  [
    "arguments that are no JSON",
    calls({ ...call, arguments: "{a: 1}" }),
    "messages[1].tool_calls[0].arguments",
    /are "\{a: 1\}", must be a JSON object/,
  ],
  [
    "arguments that are a list",
    calls({ ...call, arguments: "[1]" }),
    "messages[1].tool_calls[0].arguments",
    /must be a JSON object/,
  ],
  [
    "129 calls",
    calls(...Array.from({ length: 129 }, (_, i) => ({ ...call, id: `c${i}` }))),
    "messages[1].tool_calls",
    /have 129 entries, limit 128/,
  ],
];
for (const [name, request, field, message] of refused)
  test(`check: ${name} is refused by name`, () => {
    assert.throws(
      () => check(request),
      (error) => {
        assert.ok(error instanceof ServeError, String(error));
        assert.deepEqual(
          error.violations.map((violation) => violation.field),
          [field],
        );
        assert.equal(error.code, "INVALID_ARGUMENT");
        assert.match(error.message, message);
        return true;
      },
    );
  });

test("check: all that is wrong is reported at once", () => {
  const request = { tools: [{ name: "" }], constraint: {}, cacheSalt: "", promptLogprobs: 99 };
  assert.throws(
    () => check({ ...request, toolChoice: named("x") }),
    ({ violations }: ServeError) => {
      const fields = violations.map(({ field }) => field);
      assert.deepEqual(fields, [
        "cache_salt",
        "constraint",
        "tools[0].name",
        "tool_choice",
        "prompt_logprobs",
      ]);
      return true;
    },
  );
});

test("check: without any of it an answer is free text", () => {
  const { constraint, constraintField, tools, shownTools, cacheSalt, echo, promptLogprobs } = check(
    {},
  );
  const plain = { constraint, constraintField, tools, shownTools, cacheSalt, echo, promptLogprobs };
  assert.deepEqual(plain, {
    constraint: undefined,
    constraintField: "",
    tools: undefined,
    shownTools: [],
    cacheSalt: "",
    echo: false,
    promptLogprobs: undefined,
  });
});

const specs: [request: Init, field: string, spec: object][] = [
  [schema("true"), "constraint.json_schema", { kind: "json_schema", schema: "true" }],
  [
    { constraint: { kind: { case: "jsonObject", value: true } } },
    "constraint.json_object",
    { kind: "json_object" },
  ],
  [{ constraint: regex }, "constraint.regex", { kind: "regex", pattern: "a+" }],
  [choice(["a", "b"]), "constraint.choice", { kind: "choice", texts: ["a", "b"] }],
  [
    { constraint: { kind: { case: "grammar", value: 'root ::= "a"' } } },
    "constraint.grammar",
    { kind: "grammar", ebnf: 'root ::= "a"' },
  ],
  [
    { tools: [g], toolChoice: mode(ToolMode.NONE), constraint: regex },
    "constraint.regex",
    { kind: "regex", pattern: "a+" },
  ],
];
for (const [request, field, spec] of specs)
  test(`check: ${field} is handed on as it is`, () => {
    const { constraint, constraintField } = check(request);
    assert.deepEqual([constraint, constraintField], [spec, field]);
  });

interface Tag {
  begin: string;
  content: { json_schema: object };
  end: string;
}
interface Format {
  type: string;
  tags: Tag[];
  triggers?: string[];
  elements?: (Tag & { type: string; pattern?: string })[];
  at_least_one: boolean;
  stop_after_first: boolean;
}
/** The structural tag that comes of a request. */
function formatOf(request: Init): { format: Format; field: string } {
  const { constraint, constraintField } = check(request);
  assert.ok(constraint?.kind === "structural_tag");
  const { type, format } = JSON.parse(constraint.tag) as { type: string; format: Format };
  assert.equal(type, "structural_tag");
  return { format, field: constraintField };
}
const BEGIN_F = '<tool_call>\n{"name": "f", "arguments": ';
const END = "}\n</tool_call>";

test("check: required calls are one or more, of any tool, with its arguments", () => {
  const { format, field } = formatOf({ tools: [f, g], toolChoice: REQUIRED });
  assert.equal(field, "tools");
  assert.deepEqual(
    [format.type, format.at_least_one, format.stop_after_first],
    ["tags_with_separator", true, false],
  );
  assert.deepEqual(
    format.tags.map(({ begin, end }) => [begin, end]),
    [
      [BEGIN_F, END],
      [BEGIN_F.replace('"f"', '"g"'), END],
    ],
  );
  const none = { type: "object", properties: {}, additionalProperties: false };
  assert.deepEqual(
    format.tags.map(({ content }) => content.json_schema),
    [SCHEMA, none],
  );
});

test("check: a required call is one where calls are not parallel, or the tool is named", () => {
  const one = { tools: [f, g], toolChoice: REQUIRED, parallelToolCalls: false };
  assert.equal(formatOf(one).format.stop_after_first, true);
  assert.deepEqual(check(one).tools, { parallel: false });
  const { format } = formatOf({ tools: [g, f], toolChoice: named("f") });
  assert.deepEqual(
    [format.tags.map(({ begin }) => begin), format.stop_after_first],
    [[BEGIN_F], true],
  );
  assert.deepEqual(check({ tools: [g, f], toolChoice: named("f") }).tools, { parallel: false });
});

test("check: a strict tool holds calls to its schema once one begins", () => {
  assert.equal(check({ tools: [f, g] }).constraint, undefined);
  const { format } = formatOf({ tools: [{ ...f, strict: true }, g] });
  assert.deepEqual(
    [format.type, format.triggers, format.at_least_one],
    ["triggered_tags", ["<tool_call>"], false],
  );
  assert.deepEqual(
    format.tags.map(({ content }) => content.json_schema),
    [SCHEMA, { type: "object" }],
  );
});

test("check: beside a constraint an answer matches it or is a call", () => {
  const { format, field } = formatOf({ tools: [f], constraint: regex });
  assert.equal(field, "constraint.regex");
  assert.equal(format.type, "or");
  assert.equal(format.elements?.[0]?.begin, BEGIN_F);
  assert.deepEqual(format.elements[1], { type: "regex", pattern: "a+" });
});

test("check: tools are shown and looked for unless the choice is none", () => {
  const { shownTools, tools } = check({ tools: [f, g] });
  assert.deepEqual(
    shownTools.map(({ name }) => name),
    ["f", "g"],
  );
  assert.deepEqual(tools, { parallel: true });
  const none = check({ tools: [f, g], toolChoice: mode(ToolMode.NONE) });
  assert.deepEqual([none.shownTools, none.tools], [[], undefined]);
});

test("check: a conversation with calls and results is taken, empty arguments and an id of a message before too", () => {
  const messages = [
    ask,
    said(Role.ASSISTANT, "", { toolCalls: [call, { id: "c2", name: "g", arguments: "" }] }),
    said(Role.TOOL, "1", { toolCallId: "c2" }),
    said(Role.TOOL, "2", { toolCallId: "c1" }),
    said(Role.ASSISTANT, "", { toolCalls: [call] }),
    said(Role.TOOL, "3", { toolCallId: "c1" }),
    said(Role.ASSISTANT, "The"),
  ];
  const { prompt } = check({ messages, continueFinalMessage: true, metadata: { k: "v" } });
  assert.ok("turns" in prompt);
  assert.equal(prompt.open, true);
  assert.deepEqual(
    prompt.turns.map(({ role }) => role),
    ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"],
  );
  assert.deepEqual(prompt.turns[1]?.calls, [
    { name: "f", arguments: '{"a": 1}' },
    { name: "g", arguments: "" },
  ]);
});
