import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_TOKENS } from "@tessera/model";
import { blockCount, BlockPool } from "./blocks.js";
import { Scheduler, type ScheduledSequence, type SliceChoice } from "./scheduler.js";

class Sequence implements ScheduledSequence {
  computed = 0;
  blocks: number[] = [];
  tokenCount: number;
  constructor(
    readonly id: bigint,
    readonly arrival: number,
    readonly priority: number,
    readonly promptLength: number,
    readonly answerLength: number,
  ) {
    this.tokenCount = promptLength;
  }
  get done(): boolean {
    return this.tokenCount === this.promptLength + this.answerLength;
  }
}

test("blockCount: a 33rd token opens a second block", () => {
  assert.deepEqual([0, 1, 32, 33, 64, 65].map(blockCount), [0, 1, 1, 2, 2, 3]);
});

test("BlockPool: what is taken is distinct, and given back only once", () => {
  const pool = new BlockPool(5);
  const first = pool.take(3) ?? [];
  assert.equal(pool.take(3), undefined);
  const second = pool.take(2) ?? [];
  assert.deepEqual([...first, ...second].sort(), [0, 1, 2, 3, 4]);
  assert.deepEqual([pool.freeCount, pool.usedCount], [0, 5]);
  pool.give(first);
  assert.throws(() => pool.give(first.slice(0, 1)), /block \d was not held/);
  assert.deepEqual([pool.freeCount, pool.usedCount], [3, 2]);
  assert.deepEqual(pool.take(0), []);
});

interface Arrival {
  turn: number;
  priority: number;
  prompt: number;
  answer: number;
  /** Turn in which it is cancelled; none when it is beyond the end. */
  removal: number;
}
interface World {
  poolSize: number;
  maxBatchedTokens: number;
  maxSequences: number;
  arrivals: Arrival[];
}

const world: fc.Arbitrary<World> = fc
  .record({
    poolSize: fc.integer({ min: 1, max: 12 }),
    maxBatchedTokens: fc.integer({ min: 1, max: 100 }),
    maxSequences: fc.integer({ min: 1, max: 6 }),
  })
  .chain(({ poolSize, ...limits }) => {
    const tokens = poolSize * BLOCK_TOKENS;
    const arrival = fc
      .record({
        turn: fc.integer({ min: 0, max: 60 }),
        priority: fc.integer({ min: -1, max: 1 }),
        length: fc.integer({ min: 2, max: Math.min(tokens, 160) }),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
        removal: fc.oneof(fc.constant(1e9), fc.integer({ min: 1, max: 100 })),
      })
      .map(({ length, share, ...rest }) => {
        const prompt = 1 + Math.floor(share * (length - 2));
        return { ...rest, prompt, answer: Math.min(length - prompt, 40) };
      });
    return fc.record({
      poolSize: fc.constant(poolSize),
      maxBatchedTokens: fc.constant(limits.maxBatchedTokens),
      maxSequences: fc.constant(limits.maxSequences),
      arrivals: fc.array(arrival, { minLength: 1, maxLength: 12 }),
    });
  });

/** What a worker would hold: the tokens in the cache, by block table. */
class Ranks {
  private readonly tables = new Map<bigint, number[]>();
  private readonly lengths = new Map<bigint, number>();

  apply(slices: SliceChoice<Sequence>[]): void {
    for (const { sequence, start, count, firstBlock, newBlocks } of slices) {
      const held = this.tables.get(sequence.id) ?? [];
      assert.ok(firstBlock <= held.length, "a worker knows the blocks before the new ones");
      const table = [...held.slice(0, firstBlock), ...newBlocks];
      const known = newBlocks.length === 0 ? held : table;
      assert.deepEqual(known, sequence.blocks, "worker and coordinator agree on the table");
      assert.ok(start + count <= known.length * BLOCK_TOKENS, "every token has its place");
      const length = this.lengths.get(sequence.id) ?? 0;
      assert.ok(start === length || start === 0, `a slice from ${start} after ${length} tokens`);
      this.tables.set(sequence.id, known);
      this.lengths.set(sequence.id, start + count);
    }
  }
}

function checkStep(
  slices: SliceChoice<Sequence>[],
  world: World,
  before: Map<bigint, number>,
): void {
  const total = slices.reduce((sum, { count }) => sum + count, 0);
  assert.ok(total <= world.maxBatchedTokens, `${total} tokens over the budget`);
  assert.ok(slices.length <= world.maxSequences, "sequences over the limit");
  assert.equal(new Set(slices.map(({ sequence }) => sequence.id)).size, slices.length);
  for (const { sequence, start, count } of slices) {
    assert.ok(count > 0);
    assert.ok(start + count <= sequence.tokenCount);
    assert.equal(sequence.computed, start + count);
    const was = before.get(sequence.id) ?? 0;
    assert.ok(start === was || start === 0, "a preempted sequence begins at 0");
  }
}

/** Runs a world to its end. → turns it took. */
function run(world: World): number {
  const pool = new BlockPool(world.poolSize);
  const scheduler = new Scheduler<Sequence>(pool, world);
  const ranks = new Ranks();
  const alive = new Map<Sequence, Arrival>();
  const finished: Sequence[] = [];
  let turn = 0;
  const last = Math.max(...world.arrivals.map((arrival) => arrival.turn));
  for (; turn <= last || alive.size > 0; turn++) {
    assert.ok(turn < 20_000, "a sequence starves");
    world.arrivals.forEach((arrival, i) => {
      if (arrival.turn !== turn) return;
      const { priority, prompt, answer } = arrival;
      const sequence = new Sequence(BigInt(i), i, priority, prompt, answer);
      alive.set(sequence, arrival);
      scheduler.add(sequence);
    });
    for (const [sequence, { removal }] of alive)
      if (removal === turn) {
        scheduler.remove(sequence);
        alive.delete(sequence);
      }
    const before = new Map([...alive.keys()].map((one) => [one.id, one.computed]));
    const slices = scheduler.next();
    checkStep(slices, world, before);
    assert.ok(slices.length > 0 || alive.size === 0, "a step without work while work waits");
    ranks.apply(slices);
    const held = [...alive.keys()].flatMap((one) => one.blocks);
    assert.equal(new Set(held).size, held.length, "a block is held twice");
    assert.equal(pool.usedCount, held.length);
    assert.equal(pool.usedCount + pool.freeCount, world.poolSize);
    for (const { sequence } of slices) {
      if (sequence.computed !== sequence.tokenCount) continue;
      sequence.tokenCount++;
      if (!sequence.done) continue;
      scheduler.remove(sequence);
      alive.delete(sequence);
      finished.push(sequence);
    }
  }
  assert.equal(pool.usedCount, 0);
  assert.equal(scheduler.sequenceCount, 0);
  const removed = world.arrivals.length - finished.length;
  assert.ok(removed <= world.arrivals.filter(({ removal }) => removal < 1e9).length);
  return turn;
}

test("scheduler: whatever comes, budgets hold, no block is held twice, every sequence ends", () => {
  fc.assert(
    fc.property(world, (one) => void run(one)),
    { numRuns: 400 },
  );
});

/** Few blocks, prompts about as long as all of them together, and each arrival before the ones that are there. */
const tightWorld: fc.Arbitrary<World> = fc.integer({ min: 2, max: 5 }).chain((poolSize) => {
  const tokens = poolSize * BLOCK_TOKENS;
  const arrival = fc
    .record({
      wait: fc.integer({ min: 0, max: 4 }),
      prompt: fc.integer({ min: 1, max: tokens - 1 }),
      answer: fc.integer({ min: 1, max: 40 }),
    })
    .map(({ answer, ...rest }) => ({ ...rest, answer: Math.min(answer, tokens - rest.prompt) }));
  return fc
    .record({
      maxBatchedTokens: fc.integer({ min: 20, max: 70 }),
      rows: fc.array(arrival, { minLength: 2, maxLength: 6 }),
    })
    .map(({ maxBatchedTokens, rows }) => {
      let turn = 0;
      const arrivals = rows.map(({ wait, ...rest }, i) => {
        turn += wait;
        return { ...rest, turn, priority: -i, removal: 1e9 };
      });
      return { poolSize, maxBatchedTokens, maxSequences: 8, arrivals };
    });
});

test("scheduler: work that waits is never left without a slice, whatever comes before it later", () => {
  fc.assert(
    fc.property(tightWorld, (one) => void run(one)),
    { numRuns: 1000 },
  );
});

/** Adds sequences in order of arrival. */
function fill(limits: Omit<World, "arrivals">, rows: [number, number, number][]) {
  const scheduler = new Scheduler<Sequence>(new BlockPool(limits.poolSize), limits);
  const sequences = rows.map(
    ([priority, prompt, answer], i) => new Sequence(BigInt(i), i, priority, prompt, answer),
  );
  for (const sequence of sequences) scheduler.add(sequence);
  return { scheduler, sequences };
}

const counts = (slices: SliceChoice<Sequence>[]) =>
  slices.map(({ sequence, start, count }) => [Number(sequence.id), start, count]);

test("scheduler: decode comes first, then prefill in chunks of what the budget leaves", () => {
  const limits = { poolSize: 20, maxBatchedTokens: 10, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [
    [0, 8, 9],
    [0, 25, 9],
  ]);
  assert.deepEqual(counts(scheduler.next()), [
    [0, 0, 8],
    [1, 0, 2],
  ]);
  const [first] = sequences;
  assert.ok(first);
  first.tokenCount++;
  assert.deepEqual(counts(scheduler.next()), [
    [0, 8, 1],
    [1, 2, 9],
  ]);
});

test("scheduler: a decoding sequence goes before a prompt of higher priority", () => {
  const limits = { poolSize: 20, maxBatchedTokens: 4, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [[0, 4, 9]]);
  scheduler.next();
  const [decoding] = sequences;
  assert.ok(decoding);
  decoding.tokenCount++;
  scheduler.add(new Sequence(9n, 9, -5, 30, 1));
  assert.deepEqual(counts(scheduler.next()), [
    [0, 4, 1],
    [9, 0, 3],
  ]);
});

test("scheduler: among waiting prompts the lower number of priority is first, then the earlier", () => {
  const limits = { poolSize: 20, maxBatchedTokens: 12, maxSequences: 2 };
  const { scheduler } = fill(limits, [
    [1, 5, 1],
    [0, 5, 1],
    [0, 5, 1],
  ]);
  assert.deepEqual(counts(scheduler.next()), [
    [1, 0, 5],
    [2, 0, 5],
  ]);
});

test("scheduler: without blocks the youngest of the lowest priority gives way and begins again at 0", () => {
  const limits = { poolSize: 2, maxBatchedTokens: 64, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [
    [0, 32, 9],
    [0, 20, 9],
  ]);
  assert.deepEqual(counts(scheduler.next()), [
    [0, 0, 32],
    [1, 0, 20],
  ]);
  for (const sequence of sequences) sequence.tokenCount++;
  const slices = scheduler.next();
  assert.deepEqual(counts(slices), [[0, 32, 1]]);
  assert.deepEqual([slices[0]?.firstBlock, slices[0]?.newBlocks.length], [1, 1]);
  assert.equal(scheduler.preemptions, 1);
  const [first, second] = sequences;
  assert.ok(first && second);
  assert.deepEqual([second.computed, second.blocks], [0, []]);
  scheduler.remove(first);
  assert.deepEqual(counts(scheduler.next()), [[1, 0, 21]]);
});

test("scheduler: a decoding sequence without a block does not keep an earlier one from taking its blocks", () => {
  const limits = { poolSize: 4, maxBatchedTokens: 33, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [[0, 29, 50]]);
  const [low] = sequences;
  assert.ok(low);
  scheduler.next();
  low.tokenCount++;
  scheduler.add(new Sequence(9n, 9, -1, 120, 1));
  for (const length of [31, 32, 33]) {
    scheduler.next();
    low.tokenCount = length;
  }
  assert.deepEqual([low.computed, scheduler.pool.freeCount], [32, 0]);
  assert.deepEqual(counts(scheduler.next()), [[9, 96, 24]]);
  assert.deepEqual([low.computed, scheduler.preemptions], [0, 1]);
});

test("scheduler: removing a sequence twice changes nothing", () => {
  const limits = { poolSize: 4, maxBatchedTokens: 64, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [[0, 40, 1]]);
  scheduler.next();
  const [only] = sequences;
  assert.ok(only);
  scheduler.remove(only);
  scheduler.remove(only);
  assert.deepEqual([scheduler.pool.usedCount, scheduler.sequenceCount], [0, 0]);
});
