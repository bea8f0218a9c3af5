/** The loop with few blocks, and requests that end at any moment in any way: nothing of them stays. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import fc from "fast-check";
import type { Grammar } from "../request/constraint.js";
import type { PreparedRequest } from "../request/types.js";
import type { ActiveRequest } from "./active.js";
import { ScriptedRanks, setup, withTiles } from "./engine-loop.fixture.js";
import { HandMatcher } from "./hand-matcher.fixture.js";

const SEED = 20261125;
const RUNS = 250;
const MAX_TURNS = 3000;
const LIMITS = { blockCount: 6, maxBatchedTokens: 48, maxSequences: 6, maxWantedRows: 6 };
const VISION = { maxEmbeddings: 6, crossBlockCount: 4, maxStreamRows: 64 };

const request = fc.record({
  kind: fc.constant("submit" as const),
  prompt: fc.integer({ min: 4, max: 150 }),
  answer: fc.integer({ min: 1, max: 40 }),
  choices: fc.constantFrom(1, 1, 1, 2, 4),
  tiles: fc.constantFrom(0, 0, 1, 3),
  stream: fc.boolean(),
  picture: fc.integer({ min: 0, max: 2 }),
  priority: fc.integer({ min: -1, max: 1 }),
  tenant: fc.constantFrom("a", "b"),
  scored: fc.constantFrom(false, false, true),
  constrained: fc.constantFrom(false, false, true),
});
const step = fc.oneof(
  { weight: 3, arbitrary: request },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("answer" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("encoded" as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("mask" as const), which: fc.nat(99) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("bad" as const), which: fc.nat(99) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancel" as const), which: fc.nat(99) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("fail" as const), which: fc.nat(99) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
type Submit = Extract<Step, { kind: "submit" }>;

interface Life {
  active: ActiveRequest;
  told: string[];
  grammars: { closed: number };
  matchers: HandMatcher[];
}

/** Of a prompt as long as asked for; pictures of one name are the same. */
function preparedFrom(of: Submit): Partial<PreparedRequest> {
  const { prompt, answer, choices, tiles, stream, picture, priority, tenant, scored } = of;
  const pictures = tiles === 0 ? {} : withTiles(tiles, `picture ${picture}`);
  const seen: Partial<PreparedRequest> = {
    imageRows: [],
    streams: [
      {
        key: `${picture} ${tiles}`,
        tiles: Array.from({ length: tiles }, (_, tile) => ({ tagIds: [], tile })),
        rowCount: 16 * tiles,
      },
    ],
    sights: [{ position: 1, ranges: [{ stream: 0, first: 0, end: 16 * tiles }] }],
  };
  return {
    ...pictures,
    ...(stream && tiles > 0 ? seen : {}),
    promptIds: Array.from({ length: prompt }, (_, i) => i % 7),
    maxTokens: answer,
    choiceCount: choices,
    priority,
    tenant,
    ...(scored ? { promptLogprobs: 0 } : {}),
  };
}

class World {
  readonly ends = new Map<string, number>();
  private readonly parts: ReturnType<typeof setup>;
  private readonly ranks = new ScriptedRanks();
  private readonly lives: Life[] = [];
  private answered = 0;
  private encoded = 0;
  preempted = 0;
  accepted = 0;

  constructor(draftTokens: number) {
    this.parts = setup({
      limits: { ...LIMITS, ...VISION, draftTokens },
      prefixRoot: ({ tenant }) => tenant,
    });
    this.parts.loop.attach(this.ranks);
  }

  private pick(which: number): Life | undefined {
    const open = this.lives.filter(({ active }) => !active.ended);
    return open[which % Math.max(1, open.length)];
  }
  private get pending(): HandMatcher[] {
    const all = this.lives.flatMap(({ matchers }) => matchers);
    return all.filter(({ closed, mask, failure }) => !closed && !mask && !failure);
  }

  private submit(of: Submit): void {
    const life = { grammars: { closed: 0 }, matchers: [] as HandMatcher[] };
    const grammar: Grammar = {
      open() {
        const matcher = new HandMatcher();
        life.matchers.push(matcher);
        return matcher;
      },
      close: () => life.grammars.closed++,
    };
    const submitted = this.parts.submit(preparedFrom(of), of.constrained ? grammar : undefined);
    this.lives.push({ ...submitted, ...life });
    if (!of.constrained) life.grammars.closed = 1;
  }

  private answer(): void {
    if (this.ranks.steps.length === this.answered) return;
    this.answered = this.ranks.steps.length;
    this.ranks.answer();
  }
  private encode(): void {
    if (this.ranks.encodes.length === this.encoded) return;
    this.encoded = this.ranks.encodes.length;
    this.ranks.encodes.at(-1)?.give(1);
  }

  private do(of: Step): void {
    if (of.kind === "submit") return this.submit(of);
    if (of.kind === "answer") return this.answer();
    if (of.kind === "encoded") return this.encode();
    if (of.kind === "mask" || of.kind === "bad") {
      const matcher = this.pending[of.which % Math.max(1, this.pending.length)];
      if (of.kind === "mask") matcher?.give();
      else matcher?.fail(new ServeError("INTERNAL", "a thread has ended"));
      return;
    }
    const life = this.pick(of.which);
    if (life === undefined) return;
    const { loop } = this.parts;
    if (of.kind === "cancel") loop.cancel(life.active, { reason: "aborted" });
    else loop.fail(life.active, new ServeError("DEADLINE", "its time is up"));
  }

  async turn(of: Step): Promise<void> {
    this.do(of);
    await new Promise(setImmediate);
    this.check();
  }

  private check(): void {
    this.parts.loop.audit();
    assert.deepEqual(this.parts.faults, []);
    for (const { active, told, grammars, matchers } of this.lives) {
      const ends = told.filter((word) => /^(done|DEADLINE|INTERNAL)/.test(word));
      assert.ok(ends.length <= 1 && (ends.length === 0 || told.at(-1) === ends[0]), told.join());
      if (!active.ended) continue;
      assert.ok(grammars.closed === 1 && matchers.every(({ closed }) => closed));
    }
  }

  /** Everything that is asked for comes: every request ends, and nothing is held. */
  async end(): Promise<void> {
    for (let turn = 0; this.lives.some(({ active }) => !active.ended); turn++) {
      assert.ok(turn < MAX_TURNS, "a request starves");
      for (const matcher of this.pending) matcher.give();
      this.encode();
      this.answer();
      await new Promise(setImmediate);
      this.check();
    }
    for (let i = 0; i < 9; i++) {
      this.answer();
      this.encode();
      await new Promise(setImmediate);
    }
    const { loop, metrics } = this.parts;
    const { usedBlocks, embeddings, usedCrossBlocks, runningSequences } = loop.load();
    assert.deepEqual([usedBlocks, embeddings, usedCrossBlocks, runningSequences], [0, 0, 0, 0]);
    assert.equal(this.ranks.steps.length, this.answered, "no plan is left unanswered");
    this.checkRanks();
    this.preempted = (await metrics.preemptions.get()).values[0]?.value ?? 0;
    this.accepted = (await metrics.acceptedTokens.get()).values[0]?.value ?? 0;
    for (const { told } of this.lives) {
      assert.match(told.at(-1) ?? "", /^(done|DEADLINE|INTERNAL)/);
      const word = told.at(-1)?.split(" ")[0] ?? "";
      this.ends.set(word, (this.ends.get(word) ?? 0) + 1);
    }
  }

  /** What the plans opened on the ranks they closed; only idle streams stay. */
  private checkRanks(): void {
    const open = new Set<bigint>();
    const streams = new Set<bigint>();
    for (const plan of this.ranks.plans) {
      for (const id of plan.closedSequenceIds) assert.ok(open.delete(id), `${id} is open`);
      for (const { sequenceId } of plan.opened) open.add(sequenceId);
      for (const id of plan.closedStreamIds) assert.ok(streams.delete(id), `stream ${id} is open`);
      for (const { streamId } of plan.openedStreams) streams.add(streamId);
      for (const { sequenceId } of plan.slices) assert.ok(open.has(sequenceId));
      assert.ok(open.size <= LIMITS.maxSequences, `${open.size} sequences are open`);
    }
    assert.equal(open.size, 0);
  }
}

test("loop: whatever ends when, in whatever way, is told one end, and blocks, pictures, masks are free", async () => {
  const ends = new Map<string, number>();
  let [preempted, accepted] = [0, 0];
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 20, maxLength: 120 }),
    fc.constantFrom(0, 4),
    async (steps, draftTokens) => {
      const world = new World(draftTokens);
      for (const one of steps) await world.turn(one);
      await world.end();
      preempted += world.preempted;
      accepted += world.accepted;
      for (const [word, count] of world.ends) ends.set(word, (ends.get(word) ?? 0) + count);
    },
  );
  await fc.assert(property, { numRuns: RUNS, seed: SEED, includeErrorInReport: true });
  for (const word of ["done", "DEADLINE", "INTERNAL"])
    assert.ok((ends.get(word) ?? 0) > 50, `${word}: ${ends.get(word)}`);
  assert.ok(preempted > 100, `${preempted} preemptions`);
  assert.ok(accepted > 100, `${accepted} guessed tokens came true`);
});
