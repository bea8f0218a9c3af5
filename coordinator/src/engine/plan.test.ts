import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChoiceText, ImageRowRun } from "../request/types.js";
import { ActiveRequest, Sequence } from "./active.js";
import type { HeldStream, HeldTile, RequestImages } from "./images.js";
import { toBinary } from "@bufbuild/protobuf";
import { StepPlanSchema } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { buildPlan, openedBytes } from "./plan.js";
import { BlockKeys } from "./prefix.js";
import { GREEDY, preparedOf } from "./prepared.fixture.js";

const text: ChoiceText = {
  push: () => assert.fail("no token is pushed"),
  end: () => assert.fail("no choice ends"),
  tokenCount: 0,
};

function entry<T>(value: T) {
  return { key: "", size: 1, value, holders: 1, worthKeeping: true };
}

/** Tiles 100, 101, … of ranks 0, 1, 0, …; streams 200 and 201. */
function imagesOf(tileCount: number): RequestImages {
  const tiles = Array.from({ length: tileCount }, (_, i) =>
    entry<HeldTile>({
      embeddingId: BigInt(100 + i),
      pixels: undefined,
      rank: i % 2,
      state: "ready",
      sinceMs: 0,
      gone: false,
    }),
  );
  const streams = [200n, 201n].map((streamId) =>
    entry<HeldStream>({ streamId, blockIds: [], state: "open" }),
  );
  return { tiles, streams };
}

function sequenceOf(promptLength: number, imageRows: ImageRowRun[], tileCount: number): Sequence {
  const prepared = preparedOf({
    promptIds: Array.from({ length: promptLength }, (_, i) => i),
    imageRows,
    tileCount,
    maxTokens: 4,
    minTokens: 2,
    sampling: { ...GREEDY, temperature: 0.5, topP: 0.9, seed: 7n, badWords: [[1, 2]] },
    stopTokenIds: [9],
    topLogprobs: 3,
  });
  const nobody = () => undefined;
  const sink = {
    begun: nobody,
    promptScored: nobody,
    piece: nobody,
    done: nobody,
    failed: nobody,
  };
  const request = new ActiveRequest(prepared, sink, { weight: 1, grammar: undefined }, 0);
  request.images = imagesOf(tileCount);
  return new Sequence(5n, request, 0, 0, {
    text,
    keys: new BlockKeys("", prepared),
    matcher: undefined,
  });
}

const nothing = {
  closed: [],
  releasedEmbeddings: [],
  closedStreams: [],
  openedStreams: [],
  releasedStep: 0n,
};
const slice = (sequence: Sequence, start: number, count: number) => ({
  sequence,
  start,
  count,
  firstBlock: 0,
  newBlocks: [0],
  rows: 1,
  copy: undefined,
  drafts: [],
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
  const plan = buildPlan([], { ...nothing, ...changes, closedStreams: [5n] });
  const { closedSequenceIds, releasedEmbeddingIds, releasedStep, closedStreamIds } = plan;
  assert.deepEqual(
    [closedSequenceIds, releasedEmbeddingIds, releasedStep, closedStreamIds],
    [[1n, 2n], [3n], 4n, [5n]],
  );
});

/** Tokens from one sight to the next, and whether they see stream 0, 1, both, none. */
const sightings = fc.array(
  fc.tuple(fc.integer({ min: 1, max: 7 }), fc.subarray([0, 1], { minLength: 0 })),
  { minLength: 1, maxLength: 6 },
);

test("buildPlan: in chunks of any size every token sees what its sight says, answers as the last", () => {
  fc.assert(
    fc.property(sightings, fc.integer({ min: 1, max: 20 }), (sights, chunk) => {
      const sequence = sequenceOf(3 + sights.reduce((sum, [count]) => sum + count, 0), [], 0);
      const want = Array.from({ length: 3 }, (): number[] => []);
      const placed = sights.map(([count, streams]) => {
        const position = want.length;
        for (let i = 0; i < count; i++) want.push(streams);
        return { position, ranges: streams.map((stream) => ({ stream, first: stream, end: 9 })) };
      });
      Object.assign(sequence.request.prepared, { sights: placed });
      sequence.tokens.push(7);
      want.push(want.at(-1) ?? []);
      const got = want.map((): number[] => []);
      for (let start = 0; start < want.length; start += chunk) {
        const count = Math.min(chunk, want.length - start);
        const [only] = buildPlan([slice(sequence, start, count)], nothing).slices;
        for (const { row, count: rows, ranges } of only?.seen ?? [])
          for (let i = 0; i < rows; i++)
            got[start + row + i]?.push(...ranges.map(({ streamId }) => Number(streamId) - 200));
      }
      assert.deepEqual(got, want);
    }),
  );
});

test("buildPlan: stop ids are suppressed only while min_tokens asks for it", () => {
  const sequence = sequenceOf(4, [], 0);
  sequence.request.prepared.minTokens = 0;
  const { opened } = buildPlan([slice(sequence, 0, 4)], nothing);
  assert.deepEqual(opened[0]?.sampling?.suppressedTokenIds, []);
});

const ids = (count: number) => Array.from({ length: count }, () => 2 ** 32 - 1);

test("buildPlan: equal masks go once, few ids as runs, many as bits, and the wanted row names its own", () => {
  const few = new Uint8Array(64).fill(0);
  few[1] = 0b0011_0010;
  const many = new Uint8Array(64).fill(0b0101_0101);
  const slices = [few, many, undefined, few, many].map((mask) => {
    const sequence = sequenceOf(3, [], 0);
    const [noop, ready] = [() => undefined, Promise.resolve()];
    const state = { mask, ahead: [], mayEnd: false, ended: false, failure: undefined, ready };
    const matcher = { ...state, accept: noop, lookAhead: noop, close: noop };
    return slice(Object.assign(sequence, { parts: { ...sequence.parts, matcher } }), 0, 3);
  });
  const plan = buildPlan(slices, nothing);
  assert.deepEqual(
    plan.slices.map(({ wanted }) => wanted.at(-1)?.mask),
    [1, 2, 0, 1, 2],
  );
  assert.equal(plan.masks.length, 2);
  assert.deepEqual(
    plan.masks[0]?.runs.map(({ start, count }) => [start, count]),
    [
      [9, 1],
      [12, 2],
    ],
  );
  assert.equal(plan.masks[0]?.bits.length, 0);
  assert.deepEqual([plan.masks[1]?.runs, plan.masks[1]?.bits], [[], many]);
});

test("buildPlan: behind drafts every row is wanted like the last, with what it sees and its own mask", () => {
  const sequence = sequenceOf(5, [], 0);
  sequence.request.prepared.sights = [
    { position: 1, ranges: [{ stream: 0, first: 0, end: 4 }] },
    { position: 3, ranges: [{ stream: 1, first: 2, end: 7 }] },
  ];
  const masks = [1, 2, 4].map((bits) => new Uint8Array(64).fill(bits));
  const [mask, ...behind] = masks;
  const [noop, ready] = [() => undefined, Promise.resolve()];
  const matcher = {
    mask,
    ahead: [30, 31, 32].map((tokenId, i) => ({
      tokenId,
      mask: behind[i] ?? masks[0] ?? new Uint8Array(64),
      mayEnd: false,
    })),
    mayEnd: false,
    ended: false,
    failure: undefined,
    ready,
    accept: noop,
    lookAhead: noop,
    close: noop,
  };
  const drafted = Object.assign(sequence, { parts: { ...sequence.parts, matcher } });
  const plan = buildPlan([{ ...slice(drafted, 4, 1), drafts: [30, 31] }], nothing);
  const [only] = plan.slices;
  assert.deepEqual(only?.tokenIds, [4, 30, 31]);
  assert.deepEqual(
    only.wanted.map(({ row, candidates, topLogprobs, logprob, mask: at }) => [
      row,
      candidates,
      topLogprobs,
      logprob,
      at,
    ]),
    [
      [0, 256, 3, true, 1],
      [1, 256, 3, true, 2],
      [2, 256, 3, true, 3],
    ],
  );
  assert.equal(plan.masks.length, 3);
  assert.deepEqual(
    only.seen.map(({ row, count }) => [row, count]),
    [[0, 3]],
  );
  assert.equal(drafted.knownTokens, 5);
});

test("drafts of a constrained sequence: none whose row might have to end before min_tokens", () => {
  const sequence = sequenceOf(4, [], 0);
  const { prepared } = sequence.request;
  const mask = new Uint8Array(64).fill(1);
  const ahead = [false, true, false].map((mayEnd, i) => ({ tokenId: 30 + i, mask, mayEnd }));
  const [noop, ready] = [() => undefined, Promise.resolve()];
  const state = { mask, mayEnd: false, ended: false, failure: undefined, ready };
  const matcher = { ...state, ahead, accept: noop, lookAhead: noop, close: noop };
  const constrained = Object.assign(sequence, { parts: { ...sequence.parts, matcher } });
  const draftsAt = (minTokens: number, most = 9) => {
    prepared.minTokens = minTokens;
    return constrained.drafts(most);
  };
  assert.deepEqual(draftsAt(0), [30, 31, 32]);
  assert.deepEqual(draftsAt(2), [30, 31, 32]);
  assert.deepEqual(draftsAt(3), [30]);
  assert.deepEqual(draftsAt(0, 2), [30, 31]);
});

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
