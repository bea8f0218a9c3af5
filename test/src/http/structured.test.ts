/** The official OpenAI client, unmodified: structured outputs and tools. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { serveHttp } from "../harness/http-front.js";

const { openai } = await serveHttp();
const model = "nvlm-d-tiny";
const messages = [{ role: "user" as const, content: "Describe a person." }];
const sampled = { model, messages, temperature: 1, seed: 3, max_completion_tokens: 250 };

const Person = z.object({ name: z.enum(["Ada", "Bo"]), age: z.number().int(), old: z.boolean() });

test("parse: an answer under a schema comes as the object that it is", async () => {
  const completion = await openai.chat.completions.parse({
    ...sampled,
    response_format: zodResponseFormat(Person, "person"),
  });
  const parsed = completion.choices[0]?.message.parsed;
  assert.deepEqual(Person.parse(parsed), parsed);
});

test("response_format json_object: the content is JSON", async () => {
  const completion = await openai.chat.completions.create({
    ...sampled,
    messages: [{ role: "user", content: "Give me a person." }],
    seed: 5,
    response_format: { type: "json_object" },
  });
  const [choice] = completion.choices;
  assert.equal(choice?.finish_reason, "stop");
  assert.equal(typeof JSON.parse(choice.message.content ?? ""), "object");
});

const tool = {
  type: "function" as const,
  function: {
    name: "weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Oslo", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

test("tools: a required call, streamed through the client's helper, has whole arguments", async () => {
  const stream = openai.chat.completions.stream({
    ...sampled,
    tools: [tool],
    tool_choice: "required",
    parallel_tool_calls: false,
  });
  const { choices } = await stream.finalChatCompletion();
  assert.equal(choices[0]?.finish_reason, "tool_calls");
  const [call] = choices[0].message.tool_calls ?? [];
  assert.ok(call?.type === "function");
  const { city } = JSON.parse(call.function.arguments) as { city: string };
  assert.ok(["Oslo", "Rome"].includes(city), city);
});

test("a schema keyword that is not enforced is the client's BadRequestError with its path", async () => {
  const schema = { type: "array", items: { type: "string" }, uniqueItems: true };
  const format = { type: "json_schema" as const, json_schema: { name: "x", schema } };
  const asked = openai.chat.completions.create({ ...sampled, response_format: format });
  await assert.rejects(asked, { status: 400, message: /#\/uniqueItems/ });
});
