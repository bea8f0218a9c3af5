import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { blockCount, BlockPool } from "./blocks.js";
import { Scheduler } from "./scheduler.js";
import {
  anyWorld,
  Run,
  TestSequence,
  tightWorld,
  type Slice,
  type World,
} from "./world.fixture.js";

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

test("BlockPool: a named block stays findable until its room is needed, the end of a chain goes first", () => {
  const pool = new BlockPool(3);
  const blocks = pool.take(3) ?? [];
  blocks.forEach((block, i) => assert.ok(pool.name(block, `key ${i}`)));
  pool.give(blocks);
  assert.deepEqual([pool.freeCount, pool.idleCount, pool.usedCount], [3, 3, 0]);
  assert.equal(pool.find("key 0"), blocks[0]);
  pool.share(blocks[0] ?? -1);
  assert.deepEqual(pool.take(1), [blocks[2]]);
  assert.deepEqual([pool.find("key 1"), pool.find("key 2")], [blocks[1], undefined]);
  assert.equal(pool.take(2), undefined);
  pool.audit([blocks[0] ?? -1, blocks[2] ?? -1]);
  assert.throws(() => pool.audit([blocks[0] ?? -1]), /blocks held/);
});

test("BlockPool: of two blocks with one content the first is found; a shared one is free after its last holder", () => {
  const pool = new BlockPool(2);
  const [first = -1, second = -1] = pool.take(2) ?? [];
  assert.ok(pool.name(first, "key"));
  assert.equal(pool.name(second, "key"), false);
  pool.share(first);
  pool.give([first, second]);
  assert.deepEqual([pool.find("key"), pool.holdersOf(first), pool.freeCount], [first, 1, 1]);
  pool.give([first]);
  assert.deepEqual([pool.freeCount, pool.idleCount], [2, 1]);
  assert.throws(() => pool.share(second), /neither held nor idle/);
});

test("scheduler: whatever comes, budgets hold, every row sees its own history, every sequence ends", () => {
  let [events, right, wrong] = [0, 0, 0];
  fc.assert(
    fc.property(anyWorld, (world) => {
      const run = new Run(world);
      run.run();
      events += run.events;
      right += run.right;
      wrong += run.wrong;
    }),
    { numRuns: 800 },
  );
  assert.ok(events > 50_000, `${events} events`);
  assert.ok(right > 1000 && wrong > 1000, `drafts: ${right} came true, ${wrong} did not`);
});

test("scheduler: work that waits is never left without a slice, whatever comes before it later", () => {
  fc.assert(
    fc.property(tightWorld, (world) => new Run(world).run()),
    { numRuns: 1000 },
  );
});

const CLOCK = { turn: 0, histories: { after: (history: number) => history + 1 } };
const rowsOf = (limits: Partial<World>) => ({
  poolSize: 20,
  maxBatchedTokens: 64,
  maxSequences: 8,
  maxWantedRows: 8,
  prefixCache: false,
  ...limits,
});
const sequenceOf = (id: number, of: ConstructorParameters<typeof TestSequence>[3]) =>
  new TestSequence(CLOCK, BigInt(id), id, of);

/** Adds sequences in order of arrival. */
function fill(limits: Partial<World>, rows: [number, number, number][]) {
  const all = rowsOf(limits);
  const scheduler = new Scheduler<TestSequence>(new BlockPool(all.poolSize), all);
  const sequences = rows.map(([priority, prompt, answer], i) =>
    sequenceOf(i, { priority, prompt, answer, family: i }),
  );
  for (const sequence of sequences) scheduler.add(sequence);
  return { scheduler, sequences };
}

const counts = (slices: Slice[]) =>
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
  first.push(1);
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
  decoding.push(1);
  scheduler.add(sequenceOf(9, { priority: -5, prompt: 30, answer: 1 }));
  assert.deepEqual(counts(scheduler.next()), [
    [0, 4, 1],
    [9, 0, 3],
  ]);
});

test("scheduler: a stream has its token in every step while a long prompt is computed beside it", () => {
  const limits = { poolSize: 60, maxBatchedTokens: 16, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [[0, 4, 200]]);
  const [stream] = sequences;
  assert.ok(stream);
  scheduler.next();
  const long = sequenceOf(9, { priority: -5, prompt: 1000, answer: 1 });
  scheduler.add(long);
  let steps = 0;
  for (; long.computed < 1000; steps++) {
    stream.push(1);
    const [first, second] = scheduler.next();
    assert.equal(first?.sequence, stream);
    assert.ok(second?.sequence === long && second.count <= 15);
  }
  assert.equal(steps, Math.ceil(1000 / 15));
});

test("scheduler: of a prompt that is known to its end the last block is computed all the same", () => {
  const limits = { poolSize: 9, maxBatchedTokens: 96, maxSequences: 8, prefixCache: true };
  const { scheduler, sequences } = fill(limits, [[0, 64, 1]]);
  const [first] = sequences;
  assert.ok(first);
  scheduler.computed(scheduler.next());
  scheduler.remove(first);
  scheduler.add(sequenceOf(1, { priority: 0, prompt: 64, answer: 1 }));
  assert.deepEqual(counts(scheduler.next()), [[1, 32, 32]]);
  assert.deepEqual(scheduler.prefix, { queries: 128, hits: 32 });
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
  for (const sequence of sequences) sequence.push(1);
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

test("scheduler: a prompt counts once as looked up, however often it is computed again", () => {
  const limits = { poolSize: 3, maxBatchedTokens: 128, maxSequences: 8, prefixCache: true };
  const { scheduler, sequences } = fill(limits, [
    [0, 32, 9],
    [0, 40, 9],
  ]);
  scheduler.computed(scheduler.next());
  for (const sequence of sequences) sequence.push(1);
  // The second begins again behind the first block, which both have.
  assert.deepEqual(counts(scheduler.next()), [
    [0, 32, 1],
    [1, 32, 9],
  ]);
  assert.equal(scheduler.preemptions, 1);
  assert.deepEqual(scheduler.prefix, { queries: 32 + 40, hits: 0 });
});

test("scheduler: a decoding sequence without a block does not keep an earlier one from taking its blocks", () => {
  const limits = { poolSize: 4, maxBatchedTokens: 33, maxSequences: 8 };
  const { scheduler, sequences } = fill(limits, [[0, 29, 50]]);
  const [low] = sequences;
  assert.ok(low);
  scheduler.next();
  low.push(1);
  scheduler.add(sequenceOf(9, { priority: -1, prompt: 120, answer: 1 }));
  for (const length of [31, 32, 33]) {
    scheduler.next();
    if (low.tokenCount < length) low.push(1);
  }
  assert.deepEqual([low.computed, scheduler.pool.freeCount], [32, 0]);
  assert.deepEqual(counts(scheduler.next()), [[9, 96, 24]]);
  assert.deepEqual([low.computed, scheduler.preemptions], [0, 1]);
});

test("scheduler: drafts take what is left of rows and blocks, prompts go without, and nobody gives way", () => {
  for (const [maxWantedRows, want, blocks] of [
    [6, [4, 0], [2, 1]],
    // The first takes the last block for its guesses; the second has one place left in its own.
    [20, [8, 1], [2, 1]],
    [2, [0, 0], [1, 1]],
  ] as const) {
    const limits = { poolSize: 3, maxBatchedTokens: 60, maxSequences: 8, maxWantedRows };
    const { scheduler, sequences } = fill(limits, [
      [0, 30, 99],
      [0, 30, 99],
    ]);
    for (const sequence of sequences) sequence.of.guesses = 8;
    const draftsOf = (slices: Slice[]) => slices.map(({ drafts }) => drafts.length);
    assert.deepEqual(draftsOf(scheduler.next()), [0, 0]);
    for (const sequence of sequences) sequence.push(1000);
    const slices = scheduler.next();
    assert.deepEqual(counts(slices), [
      [0, 30, 1],
      [1, 30, 1],
    ]);
    assert.deepEqual(draftsOf(slices), want);
    assert.deepEqual(
      sequences.map((each) => each.blocks.length),
      blocks,
    );
    assert.equal(scheduler.preemptions, 0);
    scheduler.audit();
  }
});

test("scheduler: accepted drafts are computed tokens whose full blocks are found; others are computed again", () => {
  const limits = { poolSize: 9, maxBatchedTokens: 96, maxSequences: 8, prefixCache: true };
  const { scheduler, sequences } = fill(limits, [[0, 30, 99]]);
  const [only] = sequences;
  assert.ok(only);
  only.of.guesses = 7;
  scheduler.next();
  only.push(1000);
  const [slice] = scheduler.next();
  assert.ok(slice);
  scheduler.computed([slice]);
  assert.equal(slice.drafts.length, 7);
  assert.deepEqual([only.computed, only.blocks.length], [31, 2]);
  for (const token of [1000, 1000, 1000, 7]) only.push(token);
  scheduler.accepted(slice, 3);
  assert.deepEqual([only.computed, only.tokenCount], [34, 35]);
  assert.equal(scheduler.pool.find(only.keyOf(0)), only.blocks[0]);
  const [next] = scheduler.next();
  assert.deepEqual([next?.start, next?.count, next?.newBlocks], [34, 1, []]);
  scheduler.remove(only);
  scheduler.accepted(slice, 1);
  assert.equal(only.computed, 0);
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
