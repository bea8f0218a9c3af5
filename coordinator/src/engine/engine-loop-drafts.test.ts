/** The loop and guessed tokens, against ranks whose answers the test gives row by row. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import {
  CandidateSchema,
  LogSumSchema,
  StepResponseSchema,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { PreparedRequest } from "../request/types.js";
import { lane, last, ScriptedRanks, settle, setup } from "./engine-loop.fixture.js";
import { grammarOf, HandMatcher } from "./hand-matcher.fixture.js";
import { GREEDY } from "./prepared.fixture.js";

const PROMPT = Array.from({ length: 12 }, (_, i) => 40 + i);
const LIMITS = { draftTokens: 4 };
const best = (tokenId: number) => create(CandidateSchema, { tokenId, raw: 1, scaled: 1, noise: 0 });

/** What the slices of the latest plan carry, and how many rows they want. */
function asked(ranks: ScriptedRanks) {
  return last(ranks.plans).slices.map(({ startPosition, tokenIds, wanted }) => [
    startPosition,
    tokenIds,
    wanted.length,
  ]);
}

/** Answers the latest plan, a slice alone in it: one token a wanted row. */
async function answerRows(ranks: ScriptedRanks, tokens: number[]): Promise<void> {
  const [slice] = last(ranks.plans).slices;
  assert.equal(slice?.wanted.length, tokens.length);
  const rows = slice.wanted.map(({ row }, i) => ({
    sequenceId: slice.sequenceId,
    row,
    lanes: [lane(0, { best: best(tokens[i] ?? 0) })],
  }));
  last(ranks.steps).give([create(StepResponseSchema, { stepId: ranks.lastStepId, rows })]);
  await settle();
}

async function begin(change: Partial<PreparedRequest>, matcher?: HandMatcher) {
  const world = setup({ limits: LIMITS });
  const ranks = new ScriptedRanks();
  world.loop.attach(ranks);
  const request = { promptIds: PROMPT, maxTokens: 20, ...change };
  const submitted = world.submit(request, matcher && grammarOf(matcher).grammar);
  await settle();
  const count = async (name: "drafts" | "draftTokens" | "acceptedTokens") =>
    (await world.metrics[name].get()).values[0]?.value;
  return { ...world, ...submitted, ranks, count };
}

test("drafts: a copied prompt is guessed, one, two, four at once; the first wrong one ends what is taken", async () => {
  const { ranks, count, active, loop, faults } = await begin({});
  assert.deepEqual(asked(ranks), [[0, PROMPT, 1]]);
  await answerRows(ranks, [41]);
  assert.deepEqual(asked(ranks), [[12, [41], 1]]);
  await answerRows(ranks, [42]);
  assert.deepEqual(asked(ranks), [[13, [42, 43], 2]]);
  await answerRows(ranks, [43, 44]);
  assert.deepEqual(asked(ranks), [[15, [44, 45, 46], 3]]);
  await answerRows(ranks, [45, 46, 47]);
  assert.deepEqual(asked(ranks), [[18, [47, 48, 49, 50, 51], 5]]);
  // What lies behind the wrong one is computed again, over it.
  await answerRows(ranks, [48, 9, 50, 51, 52]);
  assert.deepEqual(asked(ranks), [[20, [9], 1]]);
  assert.deepEqual(
    [await count("drafts"), await count("draftTokens"), await count("acceptedTokens")],
    [3, 7, 4],
  );
  assert.equal(active.completionTokens, 9);
  loop.audit();
  assert.deepEqual(faults, []);
});

test("drafts: max_tokens is reached within a step, not passed, and everything is free", async () => {
  const { ranks, told, loop } = await begin({ maxTokens: 4 });
  await answerRows(ranks, [41]);
  await answerRows(ranks, [42]);
  // Two are left: one draft, and the row behind it.
  assert.deepEqual(asked(ranks), [[13, [42, 43], 2]]);
  await answerRows(ranks, [43, 44]);
  assert.deepEqual(told, ["text", "text", "text", "length", "done 4"]);
  await settle();
  assert.equal(loop.load().usedBlocks, 0);
  loop.audit();
});

test("drafts: penalties' state is not sent again, the ranks know what was accepted", async () => {
  const sampling = { ...GREEDY, repetitionPenalty: 1.5 };
  const { ranks } = await begin({ sampling });
  await answerRows(ranks, [41]);
  await answerRows(ranks, [42]);
  await answerRows(ranks, [43, 44]);
  await answerRows(ranks, [45, 46, 47]);
  assert.deepEqual(
    ranks.plans.map(({ opened }) => opened.length),
    [1, 0, 0, 0, 0],
  );
});

test("drafts: a logit that is not finite fails the request where it is reached, and only there", async () => {
  for (const [reached, code] of [
    [44, "NON_FINITE"],
    [9, "text"],
  ] as const) {
    const { ranks, told } = await begin({});
    await answerRows(ranks, [41]);
    await answerRows(ranks, [42]);
    await answerRows(ranks, [43, 44]);
    const [slice] = last(ranks.plans).slices;
    assert.equal(slice?.wanted.length, 3);
    const lanes = [
      lane(0, { best: best(reached === 9 ? 9 : 45) }),
      lane(0, { nonFinite: true }),
      lane(0, { best: best(47) }),
    ];
    const rows = lanes.map((one, row) => ({ sequenceId: slice.sequenceId, row, lanes: [one] }));
    last(ranks.steps).give([create(StepResponseSchema, { stepId: ranks.lastStepId, rows })]);
    await settle();
    assert.equal(told.at(-1), code);
  }
});

test("drafts: an epoch that ends while a row asks for more candidates takes nothing with it", async () => {
  const sampling = { ...GREEDY, temperature: 1, topP: 0.9 };
  const { ranks, loop, lose, told, faults, submit } = await begin({ sampling });
  for (const token of [41, 42]) {
    const scaled = create(LogSumSchema, { max: 1, sum: 1 });
    ranks.answer({ candidates: [best(token)], scaled });
    await settle();
  }
  assert.deepEqual(asked(ranks), [[13, [42, 43], 2]]);
  ranks.answer();
  await settle();
  lose(ranks, last(ranks.more), new ServeError("RANK_LOST", "rank 0"));
  await settle();
  assert.equal(told.at(-1), "RANK_LOST");
  const next = new ScriptedRanks();
  loop.attach(next);
  const later = submit();
  await settle();
  next.answer();
  await settle();
  loop.audit();
  assert.deepEqual([later.told, faults], [["length", "done 1"], []]);
});

test("drafts: of a constrained choice those that the grammar was asked about, each under its mask", async () => {
  const matcher = new HandMatcher();
  const { ranks, loop } = await begin({}, matcher);
  matcher.give();
  await settle();
  for (const token of [41, 42]) {
    await answerRows(ranks, [token]);
    matcher.give();
    await settle();
  }
  assert.deepEqual(asked(ranks), [[13, [42, 43], 2]]);
  assert.ok(last(ranks.plans).slices[0]?.wanted.every(({ mask }) => mask === 1));
  await answerRows(ranks, [43, 44]);
  assert.equal(ranks.plans.length, 3, "no step without the mask behind 44");
  matcher.give();
  await settle();
  assert.deepEqual(asked(ranks), [[15, [44, 45, 46], 3]]);
  loop.audit();
});
