import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import type { LoopPlan } from "../cluster/group.js";
import { warmUp } from "./warm-up.js";

/** A group whose steps take a time of their own making. */
function groupOf(ms: (tokens: number, sequences: number) => number, maxModelLen = 4096) {
  const clock = { nowMs: 0 };
  const open = new Set<bigint>();
  const group = {
    lastStepId: 0n,
    step(plan: LoopPlan) {
      for (const id of plan.closedSequenceIds) assert.ok(open.delete(id), `${id} is open`);
      for (const { sequenceId } of plan.opened) open.add(sequenceId);
      const blocks = plan.slices.flatMap(({ blockIds }) => blockIds);
      assert.equal(new Set(blocks).size, blocks.length, "a block belongs to one sequence");
      assert.ok(blocks.every((block) => block < limits.blockCount));
      for (const { tokenIds } of plan.slices) assert.ok(tokenIds.length <= maxModelLen);
      const wanted = plan.slices.reduce((sum, slice) => sum + slice.wanted.length, 0);
      assert.ok(wanted <= limits.maxSequences, `${wanted} wanted rows`);
      const tokens = plan.slices.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
      group.lastStepId++;
      clock.nowMs += ms(tokens, plan.slices.length);
      return Promise.resolve([]);
    },
  };
  return { group, open, nowMs: () => clock.nowMs };
}

const limits = { maxBatchedTokens: 1000, maxSequences: 48, blockCount: 64, maxModelLen: 4096 };

test("warm-up: a fast group gets its limits, and nothing is left open", async () => {
  const { group, open, nowMs } = groupOf(() => 1);
  const pace = await warmUp({ group, nowMs, limits, fixed: {} });
  assert.deepEqual(pace, { maxBatchedTokens: 1000, maxSequences: 48 });
  assert.equal(open.size, 0);
});

test("warm-up: tokens and sequences end where a step takes longer than 200 ms", async () => {
  const { group, nowMs } = groupOf((tokens, sequences) => tokens * 0.5 + sequences * 10);
  const pace = await warmUp({ group, nowMs, limits, fixed: {} });
  assert.deepEqual(pace, { maxBatchedTokens: 256, maxSequences: 16 });
});

test("warm-up: no sequence is longer than the context; a large step has several", async () => {
  for (const [maxModelLen, tokens] of [
    [300, 1000],
    [33, 1000],
    [20, 960],
  ] as const) {
    const { group, nowMs, open } = groupOf(() => 1, maxModelLen);
    const pace = await warmUp({ group, nowMs, limits: { ...limits, maxModelLen }, fixed: {} });
    assert.deepEqual(pace, { maxBatchedTokens: tokens, maxSequences: 48 });
    assert.equal(open.size, 0);
  }
});

test("warm-up: where one token takes long, a step may take four times that; two blocks at least", async () => {
  const { group, nowMs } = groupOf((tokens) => 100 * tokens);
  const pace = await warmUp({ group, nowMs, limits, fixed: {} });
  assert.deepEqual(pace, { maxBatchedTokens: 64, maxSequences: 4 });
});

test("warm-up: what was asked for by name stays as it is", async () => {
  const { group, nowMs } = groupOf((tokens) => tokens);
  const fixed = { maxBatchedTokens: 900 };
  const pace = await warmUp({ group, nowMs, limits, fixed });
  assert.deepEqual(pace, { maxBatchedTokens: 900, maxSequences: 48 });
  const both = { maxBatchedTokens: 7, maxSequences: 9 };
  assert.deepEqual(await warmUp({ group, nowMs, limits, fixed: both }), both);
});

test("warm-up: an epoch that ends meanwhile is told", async () => {
  const lost = new ServeError("RANK_LOST", "rank 1");
  const group = { lastStepId: 0n, step: () => Promise.reject(lost) };
  await assert.rejects(warmUp({ group, nowMs: () => 0, limits, fixed: {} }), lost);
});
