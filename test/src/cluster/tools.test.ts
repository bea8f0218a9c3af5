/** Tools, an open last message and the prompt's echo through a real cluster; without constraints on the answer. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Role, type GenerateInput } from "@tessera/client";
import { loadTokenizer } from "@tessera/coordinator";
import { ToolMode } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

const { client, stop } = await serve(1, { flags: { maxSequences: 4 } });
after(stop);
const tokenizer = await loadTokenizer(root("models/nvlm-d-tiny"));

const say = (role: Role, value: string, more: object = {}) => ({
  role,
  parts: [{ content: { case: "text" as const, value } }],
  ...more,
});
const ask = say(Role.USER, "Oslo?");
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ name: "weather", description: "Of a city", parameters }];
const good: GenerateInput = { messages: [ask], maxTokens: 12, returnTokenIds: true };
const decode = (ids: number[]) =>
  Buffer.concat(ids.map((id) => tokenizer.tokenBytes(id))).toString("utf8");

test("tools: what the model reads has the tools, the calls and their results", async () => {
  const toolCalls = [{ id: "c", name: "weather", arguments: '{"city":"Oslo"}' }];
  const messages = [
    ask,
    say(Role.ASSISTANT, "", { toolCalls }),
    say(Role.TOOL, "7", { toolCallId: "c" }),
  ];
  const { started } = await client.generateOnce({ ...good, messages, tools });
  const prompt = decode(started?.promptTokenIds ?? []);
  const line =
    '{"type": "function", "function": {"name": "weather", "description": "Of a city", ' +
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}';
  assert.ok(prompt.includes(`Answer the questions.\n\n# Tools\n`), prompt);
  assert.ok(prompt.includes(`<tools>\n${line}\n</tools>`), prompt);
  const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
  const result = "<tool_response>\n7\n</tool_response>";
  const tail = `assistant\n${call}<|im_end|><|im_start|>user\n${result}<|im_end|><|im_start|>assistant\n`;
  assert.ok(prompt.endsWith(tail), prompt);
  const counted = await client.countTokens({ messages, tools });
  assert.equal(counted.promptTokens, started?.promptTokens);
});

test("tools: with tool_choice none the answer is the one without tools", async () => {
  const none = { kind: { case: "mode" as const, value: ToolMode.NONE } };
  const answers = [{ ...good, tools, toolChoice: none }, good].map((one) =>
    client.generateOnce(one),
  );
  const [left, right] = await Promise.all(answers);
  assert.ok(left !== undefined && right !== undefined);
  assert.deepEqual(left.started?.promptTokenIds, right.started?.promptTokenIds);
  assert.deepEqual(essence(left), essence(right));
});

test("continue_final_message: an answer gone on with is the answer made at once", async () => {
  const whole = await client.generateOnce({ ...good, maxTokens: 8, minTokens: 8 });
  const ids = whole.choices[0]?.tokenIds ?? [];
  const begun = say(Role.ASSISTANT, decode(ids.slice(0, 3)));
  const { started, choices } = await client.generateOnce({
    ...good,
    messages: [ask, begun],
    continueFinalMessage: true,
    maxTokens: 5,
    minTokens: 5,
  });
  const prompt = [...(whole.started?.promptTokenIds ?? []), ...ids.slice(0, 3)];
  assert.equal(decode(started?.promptTokenIds ?? []), decode(prompt));
  const asIds = await client.generateOnce({
    tokenIds: started?.promptTokenIds ?? [],
    returnTokenIds: true,
    maxTokens: 5,
    minTokens: 5,
  });
  assert.deepEqual(choices[0]?.tokenIds, asIds.choices[0]?.tokenIds);
});

test("echo: every choice begins with the prompt, streamed and whole; its tokens are the answer's", async () => {
  const request = { ...good, n: 2, sampling: { temperature: 1, seed: 7n }, topLogprobs: 0 };
  const plain = await client.generateOnce(request);
  const echoed = await client.generateOnce({ ...request, echo: true });
  const prompt = "system\nAnswer the questions.user\nOslo?assistant\n";
  assert.deepEqual(
    echoed.choices.map(({ text, tokenIds, logprobs }) => [text, tokenIds, logprobs.length]),
    plain.choices.map(({ text, tokenIds, logprobs }) => [prompt + text, tokenIds, logprobs.length]),
  );
  const texts = ["", ""];
  for await (const { kind } of client.generate({ ...request, echo: true }))
    if (kind.case === "delta")
      texts[kind.value.choice] = (texts[kind.value.choice] ?? "") + kind.value.text;
  assert.deepEqual(
    texts,
    echoed.choices.map(({ text }) => text),
  );
});
