/** The loop against ranks whose answers the test gives. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import type { LaneResult } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { PreparedRequest } from "../request/types.js";
import { lane, last, ScriptedRanks, settle, setup, withTiles } from "./engine-loop.fixture.js";
import { GREEDY } from "./prepared.fixture.js";

const FILTERED = { ...GREEDY, temperature: 1, topP: 0.9 };

test("a failed moreCandidates ends every request of the epoch; the next group serves", async () => {
  const { loop, faults, submit, lose } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const all = [submit({ sampling: FILTERED }), submit(), submit({ maxTokens: 9 })];
  await settle();
  ranks.answer();
  await settle();
  lose(ranks, last(ranks.more), new ServeError("STEP_TIMEOUT", "rank 0: deadline"));
  await settle();
  assert.deepEqual(
    all.map(({ told }) => told),
    [["STEP_TIMEOUT"], ["STEP_TIMEOUT"], ["STEP_TIMEOUT"]],
  );
  const next = new ScriptedRanks();
  loop.attach(next);
  const later = submit();
  await settle();
  next.answer();
  await settle();
  assert.deepEqual([later.told, loop.requestCount, faults], [["length", "done 1"], 0, []]);
});

test("INTERNAL from a rank ends the epoch and is no fault of this process", async () => {
  const { loop, faults, submit, lose } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const { told } = submit();
  await settle();
  lose(ranks, last(ranks.steps), new ServeError("INTERNAL", "rank 0: cannot be allocated"));
  await settle();
  assert.deepEqual([told, faults], [["INTERNAL"], []]);
});

test("a failure that is not the group's is a fault of this process, whatever its code", async () => {
  for (const error of [new ServeError("RANK_LOST", "not said by a group"), new TypeError("x")]) {
    const { loop, faults, submit } = setup();
    const ranks = new ScriptedRanks();
    loop.attach(ranks);
    submit();
    await settle();
    last(ranks.steps).refuse(error);
    await settle();
    assert.deepEqual(faults, [error]);
  }
});

test("what comes in the very moment the loop goes idle is not lost", async () => {
  for (let offset = 0; offset < 40; offset++) {
    const { loop, submit } = setup();
    const ranks = new ScriptedRanks();
    loop.attach(ranks);
    submit();
    await settle();
    const { told } = submit(withTiles(1));
    ranks.answer();
    await settle();
    // The closing step and the encode are both under way; their answers come `offset` microtasks apart.
    ranks.answer();
    for (let i = 0; i < offset; i++) await Promise.resolve();
    last(ranks.encodes).give(1);
    await settle();
    ranks.answer();
    await settle();
    assert.deepEqual(told, ["length", "done 1"], `${offset} microtasks apart`);
  }
});

test("what is submitted between two groups' turns is served by the second", async () => {
  for (let offset = 0; offset < 20; offset++) {
    const { loop, submit, lose } = setup();
    const ranks = new ScriptedRanks();
    loop.attach(ranks);
    submit();
    await settle();
    lose(ranks, last(ranks.steps), new ServeError("RANK_LOST", "rank 0"));
    for (let i = 0; i < offset; i++) await Promise.resolve();
    const next = new ScriptedRanks();
    loop.attach(next);
    const { told } = submit();
    await settle();
    next.answer();
    await settle();
    assert.deepEqual(told, ["length", "done 1"], `${offset} microtasks after`);
  }
});

test("a cancel while more candidates are asked for: nothing after done, closed once", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const { active, told } = submit({ sampling: FILTERED, maxTokens: 1 });
  await settle();
  ranks.answer();
  await settle();
  loop.cancel(active, { reason: "aborted" });
  last(ranks.more).give([lane(2000)]);
  await settle();
  assert.deepEqual(told, ["aborted", "done 0"]);
  assert.deepEqual(last(ranks.plans).closedSequenceIds, [1n]);
  assert.equal(active.completionTokens, 0);
});

test("prompt log-probabilities come before anything else, and none when the request is cancelled first", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const whole = submit({ promptLogprobs: 0, maxTokens: 1 });
  const cut = submit({ promptLogprobs: 0, maxTokens: 1 });
  loop.cancel(cut.active, { reason: "aborted" });
  assert.deepEqual(cut.told, ["scored 0", "aborted", "done 0"]);
  await settle();
  assert.deepEqual(
    last(ranks.plans).slices[0]?.wanted.map(({ row, scoredTokenIds }) => [row, scoredTokenIds]),
    [
      [0, [2]],
      [1, [3]],
      [2, []],
    ],
  );
  ranks.answer();
  await settle();
  assert.deepEqual(whole.told, ["scored 2", "length", "done 1"]);
});

test("choices begin when the prompt is computed, with its blocks and a copy of the last one", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const promptIds = Array.from({ length: 40 }, (_, i) => i);
  const { told } = submit({ promptIds, choiceCount: 3, maxTokens: 2 });
  await settle();
  assert.deepEqual(
    last(ranks.plans).slices.map(({ tokenIds }) => tokenIds.length),
    [40],
  );
  ranks.answer();
  await settle();
  const { slices, copiedBlocks, opened } = last(ranks.plans);
  assert.deepEqual(
    slices.map(({ startPosition, tokenIds }) => [startPosition, tokenIds.length]),
    [
      [40, 1],
      [39, 1],
      [39, 1],
    ],
  );
  const [first, second, third] = slices.map(({ blockIds }) => blockIds);
  assert.deepEqual(first, []);
  assert.equal(second?.[0], third?.[0]);
  assert.deepEqual(
    copiedBlocks.map(({ to }) => to),
    [second?.[1], third?.[1]],
  );
  assert.equal(new Set(copiedBlocks.map(({ from }) => from)).size, 1);
  assert.deepEqual(
    opened.map(({ sampling }) => sampling?.choice),
    [1, 2],
  );
  ranks.answer();
  await settle();
  ranks.answer();
  await settle();
  loop.audit();
  assert.deepEqual(
    told.filter((word) => word !== "text"),
    ["length", "length", "length", "done 6"],
  );
});

test("only a logit that is not finite is counted as one", async () => {
  const rows: [change: Partial<LaneResult>, code: string, count: number][] = [
    [{ best: undefined }, "INVALID_ARGUMENT", 0],
    [{ nonFinite: true }, "NON_FINITE", 1],
  ];
  for (const [change, code, count] of rows) {
    const { loop, metrics, submit } = setup();
    const ranks = new ScriptedRanks();
    loop.attach(ranks);
    const { told } = submit();
    await settle();
    ranks.answer(change);
    await settle();
    assert.deepEqual(told, [code]);
    assert.equal((await metrics.nonFinite.get()).values[0]?.value ?? 0, count);
  }
});

test("what a plan opens is bounded: the rest is opened by the next ones", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const allowedTokenIds = Array.from({ length: 2 << 20 }, () => 7);
  const all = [1, 2, 3, 4].map(() =>
    submit({ maxTokens: 2, sampling: { ...GREEDY, allowedTokenIds } }),
  );
  for (let i = 0; i < 4; i++) {
    await settle();
    ranks.answer();
  }
  await settle();
  const opened = ranks.plans.map((plan) => plan.opened.length);
  assert.deepEqual(opened.slice(0, 3), [3, 1, 0]);
  for (const { told } of all) assert.deepEqual(told, ["text", "length", "done 2"]);
});

test("tiles: one a rank at first, full batches while nothing runs, 100 ms of them beside a stream", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks(2);
  loop.attach(ranks);
  submit(withTiles(18));
  await settle();
  const [first] = ranks.encodes;
  assert.deepEqual([first?.tiles, first?.estimateMs], [[1, 1], 4000]);
  first?.give(30);
  await settle();
  assert.deepEqual([last(ranks.encodes).tiles, last(ranks.encodes).estimateMs], [[8, 8], 240]);
  submit({ maxTokens: 100 });
  submit(withTiles(56, "other"));
  await settle();
  last(ranks.encodes).give(240);
  for (let i = 0; ranks.encodes.length < 12 && i < 40; i++) {
    await settle();
    ranks.answer();
    await settle();
    last(ranks.encodes).give(90);
  }
  const beside = ranks.encodes.slice(2, 11);
  assert.deepEqual(
    beside.map(({ tiles, estimateMs }) => [...tiles, estimateMs]),
    beside.map(() => [3, 3, 90]),
  );
  assert.deepEqual(
    ranks.encodes.flatMap(({ tiles }) => tiles).reduce((sum, count) => sum + count, 0),
    18 + 56,
  );
});

/** A picture of two tiles that cross-attention sees, from the second token on. */
const seen = (name: string): Partial<PreparedRequest> => ({
  ...withTiles(2, name),
  imageRows: [],
  streams: [{ key: name, tiles: [0, 1].map((tile) => ({ tagIds: [9], tile })), rowCount: 34 }],
  sights: [{ position: 1, ranges: [{ stream: 0, first: 0, end: 34 }] }],
});

test("streams: opened with the plan whose rows see them, closed when others need the room", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  for (const name of ["a", "b", "c", "d", "e"]) {
    const { told } = submit(seen(name));
    for (let i = 0; told.length === 0 && i < 9; i++) {
      await settle();
      ranks.encodes.at(-1)?.give(1);
      ranks.answer();
    }
    assert.deepEqual(told, ["length", "done 1"], name);
  }
  const opening = ranks.plans.filter(({ openedStreams }) => openedStreams.length > 0);
  assert.deepEqual(
    opening.map(({ openedStreams, slices }) => [
      openedStreams.map(({ streamId, tiles }) => [streamId, tiles.length]),
      slices.map(({ seen: rows }) => rows.map(({ row, count }) => [row, count])),
    ]),
    [1n, 2n, 3n, 4n, 5n].map((id) => [[[id, 2]], [[[1, 2]]]]),
  );
  assert.deepEqual(
    ranks.plans.flatMap(({ closedStreamIds }) => closedStreamIds),
    [1n],
  );
});

test("streams: a request that waits for room is passed by a text, not by another picture", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const large = (name: string): Partial<PreparedRequest> => ({
    ...seen(name),
    streams: [{ key: name, tiles: [{ tagIds: [], tile: 0 }], rowCount: 5 * 32 }],
  });
  const all = [submit(large("a")), submit(large("b")), submit(seen("c")), submit()];
  for (let i = 0; i < 4; i++) {
    await settle();
    ranks.answer();
  }
  await settle();
  assert.deepEqual(
    all.map(({ told }) => told.length),
    [0, 0, 0, 2],
  );
  assert.deepEqual(last(ranks.encodes).tiles, [1]);
});

test("ranks that encode together get every tile, and never a step meanwhile", async () => {
  const { loop, submit } = setup();
  const ranks = new ScriptedRanks(2);
  ranks.encodesTogether = true;
  loop.attach(ranks);
  const { told } = submit({ maxTokens: 3 });
  await settle();
  submit(withTiles(1));
  await settle();
  assert.deepEqual([ranks.steps.length, ranks.encodes.length], [1, 0]);
  ranks.answer();
  await settle();
  assert.deepEqual([ranks.steps.length, last(ranks.encodes).tiles], [1, [1, 1]]);
  last(ranks.encodes).give(5);
  await settle();
  assert.equal(ranks.steps.length, 2);
  ranks.answer();
  await settle();
  assert.deepEqual(told, ["text", "text"]);
});
