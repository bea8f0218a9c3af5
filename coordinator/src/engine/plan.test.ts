import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChoiceText, ImageRowRun, PreparedRequest } from "../request/types.js";
import { ActiveRequest, Sequence, type ActiveTile } from "./active.js";
import { toBinary } from "@bufbuild/protobuf";
import { StepPlanSchema } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { buildPlan, openedBytes } from "./plan.js";

const text: ChoiceText = {
  push: () => assert.fail("no token is pushed"),
  end: () => assert.fail("no choice ends"),
  tokenCount: 0,
};

function sequenceOf(promptLength: number, imageRows: ImageRowRun[], tileCount: number): Sequence {
  const prepared: PreparedRequest = {
    requestId: "r",
    tenant: "default",
    promptIds: Array.from({ length: promptLength }, (_, i) => i),
    imageRows,
    tiles: [],
    imageTokenCount: 0,
    tileCount,
    choiceCount: 1,
    maxTokens: 4,
    minTokens: 2,
    priority: 0,
    sampling: {
      temperature: 0.5,
      topP: 0.9,
      topK: 0,
      minP: 0,
      seed: 7n,
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      logitBias: [],
      allowedTokenIds: [],
      badWords: [[1, 2]],
    },
    stopTokenIds: [9],
    stopTexts: [],
    includeStopText: false,
    skipSpecialTokens: true,
    returnTokenIds: false,
    topLogprobs: 3,
  };
  const tiles = Array.from({ length: tileCount }, (_, i): ActiveTile => ({
    embeddingId: BigInt(100 + i),
    tile: { sha256: "", pixels: new Uint8Array(0) },
    rank: i % 2,
    state: "ready",
  }));
  const sink = { piece: () => undefined, done: () => undefined, failed: () => undefined };
  const request = new ActiveRequest(prepared, tiles, sink, 0);
  return new Sequence(5n, request, 0, 0, text);
}

const nothing = { closed: [], releasedEmbeddings: [], releasedStep: 0n };
const slice = (sequence: Sequence, start: number, count: number) => ({
  sequence,
  start,
  count,
  firstBlock: 0,
  newBlocks: [0],
});

/** Gaps and runs, alternating, each of a tile. */
const layouts = fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 1, max: 9 })), {
  minLength: 1,
  maxLength: 6,
});

test("buildPlan: in chunks of any size every image row is taken once, from its tile and place", () => {
  fc.assert(
    fc.property(layouts, fc.integer({ min: 1, max: 20 }), (layout, chunk) => {
      let position = 0;
      const runs = layout.map(([gap, count], tile): ImageRowRun => {
        const run = { position: position + gap, tile, firstRow: 3, count };
        position += gap + count;
        return run;
      });
      const length = position + 2;
      const sequence = sequenceOf(length, runs, runs.length);
      const got: [number, bigint, number, number][] = [];
      for (let start = 0; start < length; start += chunk) {
        const count = Math.min(chunk, length - start);
        const [only] = buildPlan([slice(sequence, start, count)], nothing).slices;
        assert.ok(only);
        assert.deepEqual(only.tokenIds, sequence.tokens.slice(start, start + count));
        for (const { row, embeddingId, firstRow, count: rows, encoderRank } of only.imageRows)
          for (let i = 0; i < rows; i++)
            got.push([start + row + i, embeddingId, firstRow + i, encoderRank]);
        assert.equal(only.wanted.length, start + count === length ? 1 : 0);
      }
      const want = runs.flatMap(({ position: at, tile, firstRow, count }) =>
        Array.from({ length: count }, (_, i) => [
          at + i,
          BigInt(100 + tile),
          firstRow + i,
          tile % 2,
        ]),
      );
      assert.deepEqual(got, want);
    }),
  );
});

test("buildPlan: a sequence is opened once, with its settings; the row asks for what was asked", () => {
  const sequence = sequenceOf(4, [], 0);
  const [first, second] = [0, 0].map(() => buildPlan([slice(sequence, 0, 4)], nothing));
  assert.deepEqual([first?.opened.length, second?.opened.length], [1, 0]);
  const opened = first?.opened[0];
  assert.deepEqual([opened?.sequenceId, opened?.promptLength], [5n, 4]);
  const { seed, minTokens, suppressedTokenIds, badWords } = opened?.sampling ?? assert.fail();
  assert.deepEqual([seed, minTokens, suppressedTokenIds], [7n, 2, [9]]);
  assert.deepEqual(
    badWords.map(({ tokenIds }) => tokenIds),
    [[1, 2]],
  );
  const wanted = first?.slices[0]?.wanted[0];
  const { row, candidates, topLogprobs, logprob } = wanted ?? assert.fail();
  assert.deepEqual([row, candidates, topLogprobs, logprob], [3, 256, 3, true]);
});

test("buildPlan: what ended and what is released goes out with the plan", () => {
  const changes = { closed: [1n, 2n], releasedEmbeddings: [3n], releasedStep: 4n };
  const plan = buildPlan([], changes);
  assert.deepEqual(
    [plan.closedSequenceIds, plan.releasedEmbeddingIds, plan.releasedStep],
    [[1n, 2n], [3n], 4n],
  );
});

test("buildPlan: stop ids are suppressed only while min_tokens asks for it", () => {
  const sequence = sequenceOf(4, [], 0);
  sequence.request.prepared.minTokens = 0;
  const { opened } = buildPlan([slice(sequence, 0, 4)], nothing);
  assert.deepEqual(opened[0]?.sampling?.suppressedTokenIds, []);
});

const ids = (count: number) => Array.from({ length: count }, () => 2 ** 32 - 1);

test("openedBytes: never less than what a sequence adds to a plan", () => {
  const sequence = sequenceOf(4, [], 0);
  const { prepared } = sequence.request;
  prepared.sampling.allowedTokenIds = ids(8192);
  prepared.sampling.logitBias = ids(1024).map((tokenId) => ({ tokenId, bias: -100 }));
  prepared.sampling.badWords = Array.from({ length: 128 }, () => ids(256));
  prepared.stopTokenIds = ids(64);
  const plans = [0, 0].map(() => buildPlan([slice(sequence, 0, 4)], nothing));
  const [withIt, without] = plans.map((plan) => toBinary(StepPlanSchema, plan).length);
  const added = (withIt ?? 0) - (without ?? 0);
  assert.ok(added > 100_000);
  assert.ok(openedBytes(prepared) >= added, `${openedBytes(prepared)} < ${added}`);
});
