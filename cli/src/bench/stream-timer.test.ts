import assert from "node:assert/strict";
import { test } from "node:test";
import { StreamTimer } from "./stream-timer.js";

function timesOf(chunks: [at: number, tokens: number | undefined][]) {
  const timer = new StreamTimer(100, () => 0);
  for (const [at, tokens] of chunks) timer.addChunk(at, tokens);
  return timer.times;
}

test("StreamTimer: one token a chunk gives the gaps between them", () => {
  const times = timesOf([
    [150, 1],
    [160, 1],
    [175, 1],
  ]);
  assert.deepEqual(times, {
    ttftMs: 50,
    lastMs: 75,
    gapsMs: [10, 15],
    chunkCount: 3,
    tokenCount: 3,
  });
});

test("StreamTimer: several tokens of a chunk share the gap before it", () => {
  const { gapsMs, tokenCount } = timesOf([
    [150, 2],
    [160, 4],
  ]);
  assert.deepEqual(gapsMs, [2.5, 2.5, 2.5, 2.5]);
  assert.equal(tokenCount, 6);
});

test("StreamTimer: a chunk whose tokens are not said makes the count unknown, its gap counts once", () => {
  const { gapsMs, tokenCount, chunkCount } = timesOf([
    [150, 1],
    [160, undefined],
    [170, 1],
  ]);
  assert.deepEqual([gapsMs, tokenCount, chunkCount], [[10, 10], undefined, 3]);
});

test("StreamTimer: a chunk without tokens is no first token", () => {
  const { ttftMs, chunkCount } = timesOf([
    [120, 0],
    [150, 1],
  ]);
  assert.deepEqual([ttftMs, chunkCount], [50, 1]);
});

test("StreamTimer: without a chunk there is no time", () => {
  const { ttftMs, lastMs } = timesOf([]);
  assert.deepEqual([ttftMs, lastMs], [undefined, undefined]);
});
