/** What is told of a request, and the whole answer that comes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FinishReason, type Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { preparedOf } from "../engine/prepared.fixture.js";
import { loadTokenizer, type PreparedRequest, type TextPiece } from "../request/index.js";
import { Collector } from "./collector.js";
import { EventWriter } from "./event-writer.js";

const tokenizer = await loadTokenizer(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);
const token = { tokenId: 65, logprob: -1, top: [{ tokenId: 66, logprob: -0.5 }] };
const timings = { queueMs: 1, encodeMs: 0, firstTokenMs: 2, totalMs: 3, completionTokens: 2 };

function writing(change: Partial<PreparedRequest>) {
  const events: Event[] = [];
  const collector = new Collector();
  const prepared = preparedOf({ returnTokenIds: false, ...change });
  const writer = new EventWriter(
    { prepared, model: "m", tokenizer, resumeToken: undefined },
    (event) => {
      events.push(event);
      collector.take(event);
    },
  );
  const pieces = (...list: Partial<TextPiece>[]) => {
    for (const piece of list)
      writer.piece(0, { text: "", tokens: [], finish: undefined, ...piece });
  };
  return { writer, events, pieces, response: collector.response };
}

test("events: a call's name and its arguments are deltas, and one call of the whole answer", () => {
  const { writer, events, pieces, response } = writing({});
  writer.started();
  pieces(
    { text: "Look: " },
    { toolCalls: [{ index: 0, id: "call_a", name: "f", arguments: "{" }] },
    { toolCalls: [{ index: 0, id: "", name: "", arguments: '"a": 1}' }] },
    { tokens: [token] },
    { toolCalls: [{ index: 1, id: "call_b", name: "g", arguments: "{}" }] },
    { finish: { reason: "tool_calls", stopTokenId: 2 } },
  );
  writer.done({ ...timings, cachedTokens: 32 });
  const kinds = events.map(({ kind }) => kind.case);
  assert.deepEqual(kinds, ["started", ...Array<string>(4).fill("delta"), "finished", "done"]);
  const [choice] = response.choices;
  const calls = choice?.toolCalls.map(({ index, id, name, arguments: args }) => [
    index,
    id,
    name,
    args,
  ]);
  assert.deepEqual(calls, [
    [0, "call_a", "f", '{"a": 1}'],
    [1, "call_b", "g", "{}"],
  ]);
  assert.equal(choice?.text, "Look: ");
  assert.equal(choice.finished?.reason, FinishReason.TOOL_CALLS);
  assert.deepEqual(choice.finished.matched, { case: "stopTokenId", value: 2 });
  assert.equal(response.usage?.cachedTokens, 32);
});

test("events: what is collected leaves the events as they were sent", () => {
  const { events, pieces } = writing({});
  pieces(
    { toolCalls: [{ index: 0, id: "call_a", name: "f", arguments: "{" }] },
    { toolCalls: [{ index: 0, id: "", name: "", arguments: "}" }] },
  );
  const sent = events.flatMap(({ kind }) => (kind.case === "delta" ? kind.value.toolCalls : []));
  assert.deepEqual(
    sent.map((call) => call.arguments),
    ["{", "}"],
  );
});

test("events: the prompt's logprobs come with the first", () => {
  const { writer, response } = writing({ promptLogprobs: 1 });
  writer.started([token, { ...token, tokenId: 67 }]);
  const list = response.started?.promptLogprobs ?? [];
  assert.deepEqual(
    list.map(({ tokenId, logprob }) => [tokenId, logprob]),
    [
      [65, -1],
      [67, -1],
    ],
  );
  assert.deepEqual(
    list[0]?.top.map(({ tokenId }) => tokenId),
    [66],
  );
});
