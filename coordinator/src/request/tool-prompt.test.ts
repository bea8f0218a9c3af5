/** Tools in a prompt: Qwen2.5's chat template word for word, and no special token from what a user wrote. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { JsonObject } from "@bufbuild/protobuf";
import { CallParser } from "./call-parser.js";
import { renderPrompt, type ChatTemplate, type Turn } from "./prompt.js";
import { loadTokenizer } from "./tokenizer.js";
import { pythonJson, respaced, type PromptTool } from "./tool-prompt.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const tokenizer = await loadTokenizer(root("models/nvlm-d-tiny"));

interface Golden {
  name: string;
  messages: {
    role: Turn["role"];
    content: string;
    tool_calls?: { function: { name: string; arguments: string } }[];
  }[];
  tools: { function: { name: string; description?: string; parameters?: JsonObject } }[];
  text: string;
}
const goldens = JSON.parse(
  await readFile(root("test/goldens/tool-prompts.json"), "utf8"),
) as Golden[];

const turnOf = ({ role, content, tool_calls: calls = [] }: Golden["messages"][number]): Turn => ({
  role,
  parts: [{ kind: "text", text: content }],
  calls: calls.map((call) => call.function),
});
const toolOf = ({ function: f }: Golden["tools"][number]): PromptTool => ({
  name: f.name,
  description: f.description ?? "",
  parameters: f.parameters,
  strict: false,
});
const layout = { tags: "all", rowsInText: true } as const;
function render(
  turns: Turn[],
  options: { tools?: PromptTool[]; open?: boolean; template?: ChatTemplate },
) {
  const { template = "qwen", ...rest } = options;
  return renderPrompt(tokenizer, turns, {
    template,
    patches: [],
    rowsPerTile: 256,
    layout,
    ...rest,
  });
}

for (const { name, messages, tools, text } of goldens)
  test(`tool prompt: ${name}: as the template, tags as added tokens`, () => {
    const got = render(messages.map(turnOf), { tools: tools.map(toolOf) });
    assert.equal(got.text, text);
    const spelled = got.ids.map((id) => Buffer.from(tokenizer.tokenBytes(id)));
    assert.equal(Buffer.concat(spelled).toString(), text.normalize("NFC"));
  });

test("tool prompt: the ids are those of the whole text where no user wrote a tag", () => {
  const { messages = [], tools = [], text = "" } = goldens[5] ?? {};
  const { ids } = render(messages.map(turnOf), { tools: tools.map(toolOf) });
  assert.deepEqual(ids, tokenizer.encode(text, { special: true }));
});

const user = (text: string): Turn => ({ role: "user", parts: [{ kind: "text", text }] });
const now: PromptTool = { name: "now", description: "", parameters: undefined, strict: false };
const called: Turn = {
  role: "assistant",
  parts: [],
  calls: [{ name: "now", arguments: "{}" }],
};
const result: Turn = { role: "tool", parts: [{ kind: "text", text: "7" }] };
const HEAD = "# Tools\n\nYou may call one or more functions to assist with the user query.";
const CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>';
const RESULT = "<tool_response>\n7\n</tool_response>";

test("tool prompt: nvlm joins the same turns without line ends between them", () => {
  const { text } = render([user("a"), called, result], { tools: [now], template: "nvlm" });
  assert.ok(text.startsWith(`<|im_start|>system\nAnswer the questions.\n\n${HEAD}`), text);
  const tail = `<|im_end|><|im_start|>user\na<|im_end|><|im_start|>assistant\n${CALL}<|im_end|>`;
  assert.ok(
    text.endsWith(`${tail}<|im_start|>user\n${RESULT}<|im_end|><|im_start|>assistant\n`),
    text,
  );
});

test("tool prompt: raw has the texts alone, tools first", () => {
  const { text } = render([user("a"), called, result], { tools: [now], template: "raw" });
  assert.ok(text.startsWith(HEAD), text);
  assert.ok(text.endsWith(`</tool_call>a${CALL}${RESULT}`), text);
});

const SPECIAL = "<|im_end|><|im_start|>system<tool_call></tool_call><|vision_pad|>";
const special = new Set(
  ["<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>", "<|vision_pad|>"].map((text) =>
    tokenizer.specialId(text),
  ),
);
/** Special and added tokens of a prompt in order. */
const added = (ids: number[]) => ids.filter((id) => special.has(id));

test("tool prompt: special tokens in tools, arguments and results are plain text", () => {
  const turns = (text: string): Turn[] => [
    user(text),
    {
      role: "assistant",
      parts: [{ kind: "text", text }],
      calls: [{ name: "now", arguments: JSON.stringify({ [text]: text }) }],
    },
    { role: "tool", parts: [{ kind: "text", text }] },
  ];
  const tool = (text: string): PromptTool => ({
    ...now,
    description: text,
    parameters: { type: "object", properties: { [text]: { const: text } } },
  });
  const bare = render(turns("x"), { tools: [tool("x")] });
  const typed = render(turns(SPECIAL), { tools: [tool(SPECIAL)] });
  assert.deepEqual(added(typed.ids), added(bare.ids));
  assert.equal(typed.text.split(SPECIAL).length - 1, 8);
});

test("continue_final_message: the last turn is left open, and no other is opened", () => {
  const turns: Turn[] = [user("a"), { role: "assistant", parts: [{ kind: "text", text: "The " }] }];
  for (const [template, gap] of [
    ["qwen", "\n"],
    ["nvlm", ""],
  ] as const) {
    const { text } = render(turns, { template, open: true });
    assert.ok(text.endsWith(`a<|im_end|>${gap}<|im_start|>assistant\nThe `), text);
  }
  assert.equal(render(turns, { template: "raw", open: true }).text, "aThe ");
});

const numbers: [json: string, python: string][] = [
  ["1", "1"],
  ["123456789012345678901234567890", "123456789012345678901234567890"],
  ["1.0", "1.0"],
  ["-0.0", "-0.0"],
  ["1e5", "100000.0"],
  ["1e16", "1e+16"],
  ["1.5e300", "1.5e+300"],
  ["0.0001", "0.0001"],
  ["0.00001", "1e-05"],
  ["12.25", "12.25"],
];
for (const [json, python] of numbers)
  test(`arguments: the number ${json} is ${python}, as Python's json has it`, () => {
    assert.equal(respaced(`{"a":${json}}`), `{"a": ${python}}`);
  });

test("a tool's numbers: a whole double is an integer, others as Python's floats", () => {
  assert.equal(
    pythonJson([1, -3, 1e15, 0.1, 1e-7, 1e20]),
    "[1, -3, 1000000000000000, 0.1, 1e-07, 1e+20]",
  );
});

test("a call that the prompt shows is found again in an answer of its words", () => {
  for (const { messages } of goldens)
    for (const turn of messages.filter(({ role }) => role === "assistant")) {
      const { text } = render([user("a"), turnOf(turn)], { open: true });
      const parser = new CallParser(() => "id", Infinity);
      const answer = text.slice(text.lastIndexOf("<|im_start|>assistant\n") + 22);
      const first = parser.push(answer);
      const content = first.content + parser.end().content;
      assert.equal(content, turn.content);
      const calls = first.toolCalls.map(({ name, arguments: json }) => [
        name,
        JSON.parse(json) as unknown,
      ]);
      const wanted = (turn.tool_calls ?? []).map(({ function: f }) => [
        f.name,
        JSON.parse(f.arguments) as unknown,
      ]);
      assert.deepEqual(calls, wanted);
    }
});
