import assert from "node:assert/strict";
import { test } from "node:test";
import { CoordinatorMetrics } from "../metrics.js";
import type { PreparedRequest } from "../request/types.js";
import { Drafting } from "./drafting.js";
import { preparedOf } from "./prepared.fixture.js";

const PROMPT = [1, 2, 3, 4, 5, 6, 7, 8];

/** At its full pace. */
function draftingOf(change: Partial<PreparedRequest>): Drafting {
  const counters = new CoordinatorMetrics({ codes: [], ranks: 1, maxModelLen: 64 });
  const facts = preparedOf({ promptIds: PROMPT, maxTokens: 100, ...change });
  const drafting = new Drafting(8, facts, counters);
  for (let drafts = 1; drafts < 8; drafts *= 2) drafting.verified(drafts, drafts);
  return drafting;
}

test("drafting: what followed in the prompt, and on into the answer", () => {
  const drafting = draftingOf({});
  drafting.propose([...PROMPT, 2, 3]);
  assert.deepEqual(drafting.proposal, [4, 5, 6, 7, 8, 2, 3, 4]);
  drafting.propose([...PROMPT, 2, 3, 9]);
  assert.deepEqual(drafting.proposal, []);
});

test("drafting: nothing from a stop id or an image row on", () => {
  const stopped = draftingOf({ stopTokenIds: [6] });
  stopped.propose([...PROMPT, 2, 3]);
  assert.deepEqual(stopped.proposal, [4, 5]);
  const pictured = draftingOf({ imageRows: [{ position: 4, tile: 0, firstRow: 0, count: 2 }] });
  pictured.propose([...PROMPT, 2, 3]);
  assert.deepEqual(pictured.proposal, [4]);
});

test("drafting: one token less than the answer may still have, so that no position is beyond its end", () => {
  for (const [maxTokens, count] of [
    [2, 0],
    [3, 0],
    [4, 1],
    [6, 3],
    [50, 8],
  ] as const) {
    const drafting = draftingOf({ maxTokens });
    drafting.propose([...PROMPT, 2, 3]);
    assert.equal(drafting.proposal.length, count, `max_tokens ${maxTokens}`);
  }
});

test("drafting: counts slices, tokens and accepted ones; a step without drafts is none", async () => {
  const counters = new CoordinatorMetrics({ codes: [], ranks: 1, maxModelLen: 64 });
  const drafting = new Drafting(4, preparedOf(), counters);
  for (const [drafts, accepted] of [
    [1, 1],
    [0, 0],
    [2, 0],
  ] as const)
    drafting.verified(drafts, accepted);
  const all = [counters.drafts, counters.draftTokens, counters.acceptedTokens];
  const values = await Promise.all(all.map((counter) => counter.get()));
  assert.deepEqual(
    values.map((each) => each.values[0]?.value),
    [2, 3, 1],
  );
});
