/** Tools, constraints and the rest of a body that is not text and sampling. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ServeError } from "../errors.js";
import { GenerateRequestSchema, Role, ToolMode } from "../gen/tessera/v1/inference_pb.js";
import { toGenerateRequest, type RequestOptions } from "./request.js";

const messages = [{ role: "user", content: "Hello" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "é"] }, at: { type: "number" } },
  required: ["city"],
};
const weather = {
  type: "function",
  function: { name: "weather", description: "Of a city", parameters, strict: true },
};
const from = (change: object, options?: RequestOptions) =>
  toGenerateRequest({ messages, ...change }, options);

test("tools: schema, description and strict come through the wire as they are", async () => {
  const bare = { type: "function", function: { name: "now" } };
  const { tools } = await from({ tools: [weather, bare] });
  const sent = toBinary(
    GenerateRequestSchema,
    create(GenerateRequestSchema, { tools: tools ?? [] }),
  );
  const got = fromBinary(GenerateRequestSchema, sent).tools;
  assert.equal(JSON.stringify(got[0]?.parameters), JSON.stringify(parameters));
  assert.deepEqual(
    [got[0]?.name, got[0]?.description, got[0]?.strict],
    ["weather", "Of a city", true],
  );
  assert.deepEqual(tools?.[1], { name: "now", description: "" });
});

const choices: [given: unknown, taken: unknown][] = [
  ["none", { kind: { case: "mode", value: ToolMode.NONE } }],
  ["auto", { kind: { case: "mode", value: ToolMode.AUTO } }],
  ["required", { kind: { case: "mode", value: ToolMode.REQUIRED } }],
  [
    { type: "function", function: { name: "weather" } },
    { kind: { case: "name", value: "weather" } },
  ],
  [null, undefined],
];
for (const [given, taken] of choices)
  test(`tool_choice: ${JSON.stringify(given)}`, async () => {
    const { toolChoice } = await from({ tools: [weather], tool_choice: given });
    assert.deepEqual(toolChoice, taken);
  });

test("messages: calls, null content beside them, results, a developer, names", async () => {
  const call = { id: "c1", type: "function", function: { name: "weather", arguments: "{}" } };
  const { messages: got } = await toGenerateRequest({
    messages: [
      { role: "developer", content: "Be brief.", name: "boss" },
      { role: "user", content: "Oslo?", name: "me" },
      { role: "assistant", content: null, tool_calls: [call], refusal: null, audio: null },
      { role: "tool", tool_call_id: "c1", content: [{ type: "text", text: "7°" }] },
      { role: "assistant", content: "Seven.", tool_calls: null },
    ],
  });
  const text = (value: string) => [{ content: { case: "text", value } }];
  assert.deepEqual(got, [
    { role: Role.SYSTEM, parts: text("Be brief.") },
    { role: Role.USER, parts: text("Oslo?") },
    {
      role: Role.ASSISTANT,
      parts: [],
      toolCalls: [{ id: "c1", name: "weather", arguments: "{}" }],
    },
    { role: Role.TOOL, parts: text("7°"), toolCallId: "c1" },
    { role: Role.ASSISTANT, parts: text("Seven.") },
  ]);
});

const SCHEMA = { type: "object", properties: { a: { type: "integer" } } };
const constraints: [name: string, given: object, taken: unknown][] = [
  ["response_format text", { response_format: { type: "text" } }, undefined],
  [
    "response_format json_object",
    { response_format: { type: "json_object" } },
    { case: "jsonObject", value: true },
  ],
  [
    "response_format json_schema",
    {
      response_format: {
        type: "json_schema",
        json_schema: { name: "n", schema: SCHEMA, strict: true },
      },
    },
    { case: "jsonSchema", value: JSON.stringify(SCHEMA) },
  ],
  [
    "response_format structural_tag",
    { response_format: { type: "structural_tag", format: { type: "any_text" } } },
    { case: "structuralTag", value: '{"type":"structural_tag","format":{"type":"any_text"}}' },
  ],
  ["guided_json", { guided_json: SCHEMA }, { case: "jsonSchema", value: JSON.stringify(SCHEMA) }],
  ["guided_json as text", { guided_json: "{}" }, { case: "jsonSchema", value: "{}" }],
  ["guided_regex", { guided_regex: "a|b" }, { case: "regex", value: "a|b" }],
  ["guided_choice", { guided_choice: ["a"] }, { case: "choice", value: { texts: ["a"] } }],
  [
    "guided_grammar",
    { guided_grammar: 'root ::= "a"' },
    { case: "grammar", value: 'root ::= "a"' },
  ],
  [
    "structured_outputs json",
    { structured_outputs: { json: SCHEMA, regex: null } },
    { case: "jsonSchema", value: JSON.stringify(SCHEMA) },
  ],
  [
    "structured_outputs json_object",
    { structured_outputs: { json_object: true } },
    { case: "jsonObject", value: true },
  ],
  [
    "structured_outputs structural_tag",
    { structured_outputs: { structural_tag: { format: {} } } },
    { case: "structuralTag", value: '{"format":{}}' },
  ],
  ["response_format null", { response_format: null }, undefined],
];
for (const [name, given, taken] of constraints)
  test(`constraint: ${name}`, async () => {
    const { constraint } = await from(given);
    assert.deepEqual(constraint?.kind, taken);
  });

test("stream: taken where the caller can stream, with its options", async () => {
  const body = { stream: true, stream_options: { include_usage: true } };
  assert.deepEqual(await from(body, { stream: true }), await from({}));
});

function nested(depth: number): object {
  let json: object = {};
  for (let i = 0; i < depth; i++) json = { a: json };
  return json;
}
const fn = (change: object) => ({
  tools: [{ type: "function", function: { name: "f", ...change } }],
});
const said = (message: object) => ({ messages: [{ role: "assistant", content: "a", ...message }] });
const called = (call: unknown) => said({ tool_calls: [call] });
const CALLS = "messages[0].tool_calls";
const SERVED = /is not known or not served/;

const refused: [name: string, change: object, field: string, message: RegExp][] = [
  ["tools as an object", { tools: {} }, "tools", /is an object, must be a list/],
  ["a tool that is null", { tools: [null] }, "tools[0]", /must be an object/],
  [
    "a tool of no type",
    { tools: [{ function: {} }] },
    "tools[0].type",
    /is undefined, must be function/,
  ],
  ["a custom tool", { tools: [{ type: "custom" }] }, "tools[0].type", /is "custom"/],
  ["a tool without function", { tools: [{ type: "function" }] }, "tools[0].function", /must be an/],
  ["a tool's name 7", fn({ name: 7 }), "tools[0].function.name", /is 7, must be a text/],
  ["a description of 7", fn({ description: 7 }), "tools[0].function.description", /is 7/],
  ["parameters as a text", fn({ parameters: "{}" }), "tools[0].function.parameters", /an object/],
  ["parameters as a list", fn({ parameters: [] }), "tools[0].function.parameters", /an object/],
  [
    "parameters of depth 65",
    fn({ parameters: nested(64) }),
    "tools[0].function.parameters",
    /than 64/,
  ],
  [
    "parameters of depth 9,000",
    fn({ parameters: nested(9000) }),
    "tools[0].function.parameters",
    /64/,
  ],
  ["strict as a text", fn({ strict: "yes" }), "tools[0].function.strict", /is "yes", must be true/],
  ["tool_choice any", { tool_choice: "any" }, "tool_choice", /is "any", must be none, auto/],
  ["tool_choice toString", { tool_choice: "toString" }, "tool_choice", /is "toString"/],
  ["tool_choice 7", { tool_choice: 7 }, "tool_choice", /is 7/],
  ["tool_choice of no type", { tool_choice: {} }, "tool_choice.type", /is undefined/],
  [
    "tool_choice allowed_tools",
    { tool_choice: { type: "allowed_tools" } },
    "tool_choice.type",
    /is "all/,
  ],
  [
    "tool_choice without a name",
    { tool_choice: { type: "function", function: {} } },
    "tool_choice.function.name",
    /is undefined, must be a text/,
  ],
  [
    "parallel_tool_calls 1",
    { parallel_tool_calls: 1 },
    "parallel_tool_calls",
    /is 1, must be true/,
  ],
  ["tool_calls as an object", said({ tool_calls: {} }), CALLS, /is an object, must be a list/],
  ["a call that is a text", called("f"), `${CALLS}[0]`, /must be an object/],
  ["a call of another type", called({ type: "custom" }), `${CALLS}[0].type`, /is "custom"/],
  ["a call without function", called({ id: "c" }), `${CALLS}[0].function`, /must be an object/],
  ["a call without id", called({ function: {} }), `${CALLS}[0].id`, /is undefined, must be a text/],
  [
    "a call without name",
    called({ id: "c", function: {} }),
    `${CALLS}[0].function.name`,
    /is undef/,
  ],
  [
    "arguments as an object",
    called({ id: "c", function: { name: "f", arguments: {} } }),
    `${CALLS}[0].function.arguments`,
    /is an object, must be a text/,
  ],
  [
    "content null without calls",
    said({ content: null }),
    "messages[0].content",
    /must be a text or a/,
  ],
  ["tool_call_id 7", said({ tool_call_id: 7 }), "messages[0].tool_call_id", /is 7, must be a text/],
  [
    "function_call of a message",
    said({ function_call: {} }),
    "messages[0].function_call",
    /use tool_calls/,
  ],
  ["audio of a message", said({ audio: { id: "a" } }), "messages[0].audio", /content is text and/],
  [
    "the role function",
    { messages: [{ role: "function", content: "a" }] },
    "messages[0].role",
    /"function"/,
  ],
  ["functions", { functions: [] }, "functions", /deprecated and not served; use tools/],
  ["function_call", { function_call: "auto" }, "function_call", /use tool_choice/],
  ["audio", { audio: {} }, "audio", /answers are text/],
  ["best_of", { best_of: 2 }, "best_of", /ask for n choices/],
  ["suffix", { suffix: "x" }, "suffix", /do not fill in/],
  [
    "response_format as a text",
    { response_format: "json" },
    "response_format",
    /must be an object/,
  ],
  ["response_format of no type", { response_format: {} }, "response_format.type", /is undefined/],
  ["response_format xml", { response_format: { type: "xml" } }, "response_format.type", /is "xml"/],
  [
    "a schema that is missing",
    { response_format: { type: "json_schema" } },
    "response_format.json_schema",
    /must be an object/,
  ],
  [
    "a schema without name",
    { response_format: { type: "json_schema", json_schema: { schema: {} } } },
    "response_format.json_schema.name",
    /is undefined/,
  ],
  [
    "a schema as a text",
    { response_format: { type: "json_schema", json_schema: { name: "n", schema: "{}" } } },
    "response_format.json_schema.schema",
    /must be an object/,
  ],
  [
    "strict as a number",
    { response_format: { type: "json_schema", json_schema: { name: "n", schema: {}, strict: 1 } } },
    "response_format.json_schema.strict",
    /is 1, must be true or false/,
  ],
  ["guided_json 7", { guided_json: 7 }, "guided_json", /must be an object/],
  [
    "guided_json of depth 9,000",
    { guided_json: nested(9000) },
    "guided_json",
    /nested deeper than 64/,
  ],
  ["guided_regex 7", { guided_regex: 7 }, "guided_regex", /is 7, must be a text/],
  ["guided_choice as a text", { guided_choice: "a" }, "guided_choice", /is "a", must be a list/],
  ["a choice of 7", { guided_choice: ["a", 7] }, "guided_choice[1]", /is 7, must be a text/],
  ["guided_grammar list", { guided_grammar: [] }, "guided_grammar", /is a list, must be a text/],
  [
    "structured_outputs list",
    { structured_outputs: [] },
    "structured_outputs",
    /must be an object/,
  ],
  [
    "structured_outputs empty",
    { structured_outputs: {} },
    "structured_outputs",
    /has no constraint/,
  ],
  ["structured_outputs xml", { structured_outputs: { xml: 1 } }, "structured_outputs.xml", SERVED],
  [
    "json_object as a text",
    { structured_outputs: { json_object: "yes" } },
    "structured_outputs.json_object",
    /is "yes", must be true or false/,
  ],
  [
    "two constraints",
    { guided_regex: "a", structured_outputs: { choice: ["a"] } },
    "structured_outputs.choice",
    /is given beside guided_regex/,
  ],
  ["prompt_logprobs -1", { prompt_logprobs: -1 }, "prompt_logprobs", /is -1, must be a whole/],
  ["echo 1", { echo: 1 }, "echo", /is 1, must be true or false/],
  [
    "add_generation_prompt false",
    { add_generation_prompt: false },
    "add_generation_prompt",
    /needs cont/,
  ],
  [
    "both ways to begin",
    { add_generation_prompt: true, continue_final_message: true },
    "add_generation_prompt",
    /beside continue_final_message/,
  ],
  ["continue_final_message 1", { continue_final_message: 1 }, "continue_final_message", /is 1/],
  ["cache_salt 7", { cache_salt: 7 }, "cache_salt", /is 7, must be a text/],
  ["resume 1", { resume: 1 }, "resume", /is 1, must be true or false/],
  ["request_id 7", { request_id: 7 }, "request_id", /is 7, must be a text/],
  ["metadata as a list", { metadata: [] }, "metadata", /must be an object/],
  ["metadata of numbers", { metadata: { a: 7 } }, "metadata", /"a" is 7, must be a text/],
  ["user 7", { user: 7 }, "user", /is 7, must be a text/],
  ["store true", { store: true }, "store", /answers are not kept/],
  [
    "service_tier flex",
    { service_tier: "flex" },
    "service_tier",
    /is "flex", must be auto or default/,
  ],
  ["modalities audio", { modalities: ["text", "audio"] }, "modalities", /have "audio"/],
  ["no modalities", { modalities: [] }, "modalities", /must be \["text"\]/],
  ["stream_options alone", { stream_options: {} }, "stream_options", /without stream: true/],
];
for (const [name, change, field, message] of refused)
  test(`body: ${name} is refused by name`, async () => {
    const error = await from(change).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof ServeError, String(error));
    assert.equal(error.violations[0]?.field, field);
    assert.match(error.message, message);
  });

test("stream_options: an unknown key and a wrong value are refused by name", async () => {
  const ask = (options: unknown) =>
    from({ stream: true, stream_options: options }, { stream: true });
  await assert.rejects(ask({ usage: true }), /^ServeError: stream_options\.usage: is not known/);
  await assert.rejects(ask({ include_usage: 1 }), /include_usage: is 1, must be true or false/);
  await assert.rejects(ask(7), /stream_options: must be an object/);
});
