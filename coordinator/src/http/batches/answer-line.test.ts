/** A batch's line against streams that refuse: what is waited for, tried again, or told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError, type ServeErrorCode } from "@tessera/proto";
import type { GenerateRequest } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { ANYONE } from "../../access/caller.js";
import type { Front } from "../../stream/front.js";
import { answerLine } from "./answer-line.js";
import { Slots } from "./slots.js";

/** Refuses with each code in turn, then answers without a choice. */
function frontOf(codes: ServeErrorCode[]) {
  const asked: GenerateRequest[] = [];
  const told: string[] = [];
  const front = {
    streams: {
      generate(message: GenerateRequest): Promise<void> {
        asked.push(message);
        const code = codes[asked.length - 1];
        if (code === undefined) return Promise.resolve();
        return Promise.reject(new ServeError(code, "no", { retryDelayMs: 1 }));
      },
    },
    serving: { metrics: { refused: { inc: ({ code }: { code: string }) => told.push(code) } } },
  };
  return { front: front as unknown as Front, asked, told };
}

const line = {
  endpoint: "/v1/chat/completions",
  body: { messages: [{ role: "user", content: "a" }], priority: 3 },
  requestId: "r",
  caller: ANYONE,
} as const;
const never = () => new AbortController().signal;

test("answerLine: what passes by itself is waited for, under the same id and behind live requests", async () => {
  const { front, asked, told } = frontOf(["OVERLOADED", "NOT_READY", "RANK_LOST"]);
  const { status } = await answerLine(front, { ...line, signal: never() }, new Slots(1));
  assert.equal(status, 200);
  assert.deepEqual(
    asked.map(({ requestId, priority }) => [requestId, priority]),
    Array<unknown>(4).fill(["r", 103]),
  );
  assert.deepEqual(told, []);
});

test("answerLine: what the line asks for wrongly is told at once", async () => {
  const { front, asked, told } = frontOf(["CONTEXT_TOO_LONG"]);
  const { status } = await answerLine(front, { ...line, signal: never() }, new Slots(1));
  assert.equal(status, 400);
  assert.equal(asked.length, 1);
  assert.deepEqual(told, ["CONTEXT_TOO_LONG"]);
});

test("answerLine: a slot is free while a line waits, and a stop ends the wait", async () => {
  const { front } = frontOf(Array<ServeErrorCode>(1000).fill("OVERLOADED"));
  const stop = new AbortController();
  const slots = new Slots(1);
  const answer = answerLine(front, { ...line, signal: stop.signal }, slots);
  // In turn behind the line, whose attempt ends.
  const giveBack = await slots.take(never());
  giveBack();
  const reason = new ServeError("ABORTED", "stopped");
  stop.abort(reason);
  await assert.rejects(answer, reason);
});
