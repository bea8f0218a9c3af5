/** Events of a request as typed events of a response: text, calls, and an end that is none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { EventSchema, FinishReason, type Event } from "../gen/tessera/v1/inference_pb.js";
import { ResponseWriter, type TypedEvent } from "./responses-events.js";
import { toResponseRequest } from "./responses-request.js";

const { echo } = await toResponseRequest({ input: "a" });
const name = { id: "x", model: "m", createdSeconds: 1 };
type Init = Parameters<typeof create<typeof EventSchema>>[1];
const event = (kind: NonNullable<Init>["kind"]): Event => create(EventSchema, { kind } as Init);
const delta = (text: string, toolCalls: object[] = []) =>
  event({ case: "delta", value: { text, toolCalls } as never });
const end = [
  event({ case: "finished", value: { reason: FinishReason.TOOL_CALLS } as never }),
  event({ case: "done", value: { usage: { promptTokens: 3, completionTokens: 4 } } as never }),
];

function write(...events: Event[]): { writer: ResponseWriter; typed: TypedEvent[] } {
  const writer = new ResponseWriter(name, echo);
  return { writer, typed: events.flatMap((one) => writer.take(one)) };
}

test("responses: calls are items of their own, with their arguments in pieces", () => {
  const { writer, typed } = write(
    event({ case: "started", value: {} as never }),
    delta("Look"),
    delta("", [{ index: 0, id: "c", name: "f", arguments: "" }]),
    delta("", [{ index: 0, arguments: '{"a":' }]),
    delta("", [{ index: 0, arguments: "1}" }]),
    delta("", [{ index: 1, id: "d", name: "g", arguments: "{}" }]),
    ...end,
  );
  assert.deepEqual(
    typed.map(({ type }) => type.replace(/^response\./, "")),
    [
      "created",
      "in_progress",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "completed",
    ],
  );
  const { output, usage } = writer.response as {
    output: Record<string, unknown>[];
    usage: { total_tokens: number };
  };
  assert.deepEqual(
    output.map((item) => [item["type"], item["call_id"], item["arguments"], item["status"]]),
    [
      ["message", undefined, undefined, "completed"],
      ["function_call", "c", '{"a":1}', "completed"],
      ["function_call", "d", "{}", "completed"],
    ],
  );
  assert.equal(usage.total_tokens, 7);
  const places = typed.flatMap((one) => one["output_index"] ?? []);
  assert.deepEqual([...new Set(places)], [0, 1, 2]);
});

test("responses: an answer without a token is an empty text", () => {
  const { writer } = write(event({ case: "started", value: {} as never }), ...end);
  const { output } = writer.response as { output: { content: { text: string }[] }[] };
  assert.deepEqual(
    output.map(({ content }) => content.map(({ text }) => text)),
    [[""]],
  );
});

test("responses: a failure is the last event, with its reason", () => {
  const { writer } = write(delta("a"));
  const { type, response } = writer.fail({ code: "server_error", message: "gone" });
  assert.equal(type, "response.failed");
  assert.deepEqual((response as { error: object }).error, {
    code: "server_error",
    message: "gone",
  });
});
