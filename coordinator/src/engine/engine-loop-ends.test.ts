/** When requests are told what they are told, and what stays of those that end early. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { RequestTimings } from "./active.js";
import { last, ScriptedRanks, settle, setup, withTiles } from "./engine-loop.fixture.js";
import { preparedOf } from "./prepared.fixture.js";

test("a request cancelled while its tiles are encoded has the time so far, its tiles stay idle", async () => {
  const { loop, clock, faults } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const done: RequestTimings[] = [];
  const sink = {
    begun: () => undefined,
    promptScored: () => undefined,
    piece: () => undefined,
    done: (timings: RequestTimings) => done.push(timings),
    failed: () => undefined,
  };
  clock.nowMs = 5000;
  const options = { weight: 1, grammar: undefined };
  const active = loop.submit(preparedOf(withTiles(1)), sink, options);
  await settle();
  clock.nowMs = 5300;
  loop.cancel(active, { reason: "aborted" });
  assert.deepEqual(
    done.map(({ encodeMs, totalMs }) => [encodeMs, totalMs]),
    [[300, 300]],
  );
  last(ranks.encodes).give(1);
  await settle();
  loop.audit();
  const { embeddings, idleEmbeddings } = loop.load();
  assert.deepEqual([embeddings, idleEmbeddings, loop.requestCount, faults], [0, 1, 0, []]);
});

test("a token is told before the ranks encode together, not after it", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks(2);
  ranks.encodesTogether = true;
  loop.attach(ranks);
  const { told } = submit({ maxTokens: 3 });
  await settle();
  submit(withTiles(1));
  ranks.answer();
  await settle();
  assert.deepEqual([ranks.steps.length, ranks.encodes.length], [1, 1]);
  assert.deepEqual(told, ["text"]);
});
