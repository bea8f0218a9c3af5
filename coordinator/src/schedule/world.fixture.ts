/** Sequences, ranks and a scheduler put together: whatever comes, what the ranks hold is looked at after each step. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { BLOCK_TOKENS } from "@tessera/model";
import { BlockPool } from "./blocks.js";
import { Scheduler, type ScheduledSequence, type SliceChoice } from "./scheduler.js";

/** A token behind a history, as a number: equal numbers are equal histories. */
class Histories {
  private readonly ids = new Map<string, number>();
  after(history: number, token: number): number {
    const name = `${history} ${token}`;
    const id = this.ids.get(name) ?? this.ids.size + 1;
    this.ids.set(name, id);
    return id;
  }
}

export interface Arrival {
  turn: number;
  priority: number;
  prompt: number;
  answer: number;
  /** Turn in which it is cancelled; none when it is beyond the end. */
  removal: number;
  /** Prompts of one family have the same beginning, as far as they go. */
  family: number;
  /** Forks made when the prompt is computed. */
  forks: number;
  /** Prompt tokens whose rows are wanted; no look-up then. */
  scored: boolean;
  /** Turns after each token in which the next one cannot be chosen yet. */
  maskTurns: number;
  /** Guesses of a step, some of them wrong. */
  guesses: number;
}

export interface World {
  poolSize: number;
  maxBatchedTokens: number;
  maxSequences: number;
  prefixCache: boolean;
  arrivals: Arrival[];
}

export class TestSequence implements ScheduledSequence {
  computed = 0;
  blocks: number[] = [];
  toldBlocks = 0;
  copyFrom: number | undefined;
  readonly tokens: number[];
  readonly history: number[] = [];
  maskedUntil = 0;
  forked = false;

  constructor(
    private readonly world: { turn: number; histories: Pick<Histories, "after"> },
    readonly id: bigint,
    readonly arrival: number,
    readonly of: Pick<Arrival, "priority" | "prompt" | "answer"> & Partial<Arrival>,
    readonly choice = 0,
  ) {
    this.tokens = Array.from({ length: of.prompt }, (_, i) => 100 * (of.family ?? 0) + (i % 7));
    this.rehash();
  }
  private rehash(): void {
    const { histories } = this.world;
    for (let i = this.history.length; i < this.tokens.length; i++)
      this.history.push(histories.after(this.history[i - 1] ?? 0, this.tokens[i] ?? 0));
  }
  get priority(): number {
    return this.of.priority;
  }
  get tokenCount(): number {
    return this.tokens.length;
  }
  get ready(): boolean {
    return this.maskedUntil <= this.world.turn;
  }
  get wantedBefore(): number {
    return this.of.scored === true ? this.of.prompt - 1 : 0;
  }
  get looksUp(): boolean {
    return this.of.scored !== true;
  }
  /** What it will say next; from time to time something else. */
  drafts(most: number): number[] {
    const left = this.of.prompt + this.of.answer - this.tokens.length - 1;
    const count = Math.max(0, Math.min(most, this.of.guesses ?? 0, left));
    return Array.from({ length: count }, (_, i) =>
      (this.world.turn + Number(this.id) + 2 * i) % 5 === 0 ? 9 : this.next,
    );
  }
  get next(): number {
    return 1000 + this.choice;
  }
  keyOf(index: number): string {
    return `block of ${this.history[(index + 1) * BLOCK_TOKENS - 1]}`;
  }
  get done(): boolean {
    return this.tokens.length === this.of.prompt + this.of.answer;
  }
  push(token: number): void {
    this.tokens.push(token);
    this.rehash();
    const { maskTurns = 0 } = this.of;
    if (maskTurns > 0) this.maskedUntil = this.world.turn + 1 + maskTurns;
  }
}

export type Slice = SliceChoice<TestSequence>;

/** What the ranks hold: in each slot of each block the history that its key and value came from. */
class Ranks {
  private readonly memory = new Map<number, number[]>();
  private readonly tables = new Map<bigint, number[]>();

  constructor(private readonly histories: Histories) {}

  private block(index: number): number[] {
    const known = this.memory.get(index) ?? [];
    this.memory.set(index, known);
    return known;
  }
  apply(slices: Slice[]): void {
    for (const { copy } of slices)
      if (copy !== undefined) this.memory.set(copy.to, [...this.block(copy.from)]);
    const written = new Map<number, bigint>();
    for (const slice of slices) this.compute(slice, written);
    for (const slice of slices) this.look(slice);
  }
  private compute(slice: Slice, written: Map<number, bigint>): void {
    const { sequence, start, count, firstBlock, newBlocks } = slice;
    const held = this.tables.get(sequence.id) ?? [];
    assert.ok(firstBlock <= held.length, "the ranks know the blocks before the new ones");
    const table = newBlocks.length === 0 ? held : [...held.slice(0, firstBlock), ...newBlocks];
    assert.deepEqual(table, sequence.blocks, "ranks and coordinator agree on the table");
    this.tables.set(sequence.id, table);
    for (let position = start; position < start + count; position++) {
      const block = table[Math.floor(position / BLOCK_TOKENS)];
      assert.ok(block !== undefined, "every token has its place");
      assert.equal(written.get(block) ?? sequence.id, sequence.id, "two write to one block");
      written.set(block, sequence.id);
      this.block(block)[position % BLOCK_TOKENS] = sequence.history[position] ?? 0;
    }
    this.guess(slice, written);
  }
  /** Drafts lie behind the slice's tokens; whoever reads them there must know that they came true. */
  private guess({ sequence, start, count, drafts }: Slice, written: Map<number, bigint>): void {
    let history = sequence.history[start + count - 1] ?? 0;
    for (const [i, draft] of drafts.entries()) {
      const position = start + count + i;
      const block = sequence.blocks[Math.floor(position / BLOCK_TOKENS)];
      assert.ok(block !== undefined, "every draft has its place");
      assert.equal(written.get(block) ?? sequence.id, sequence.id, "two write to one block");
      written.set(block, sequence.id);
      history = this.histories.after(history, draft);
      this.block(block)[position % BLOCK_TOKENS] = history;
    }
  }
  /** What the last row of the slice sees is its own history, whoever computed it. */
  private look({ sequence, start, count }: Slice): void {
    for (let position = 0; position < start + count; position++) {
      const block = sequence.blocks[Math.floor(position / BLOCK_TOKENS)] ?? -1;
      const seen = this.block(block)[position % BLOCK_TOKENS];
      assert.equal(seen, sequence.history[position], `position ${position} of ${sequence.id}`);
    }
  }
  gone(id: bigint): void {
    this.tables.delete(id);
  }
}

export class Run {
  readonly scheduler: Scheduler<TestSequence>;
  private readonly alive = new Map<TestSequence, Arrival>();
  private readonly clock = { turn: 0, histories: new Histories() };
  private readonly ranks = new Ranks(this.clock.histories);
  private nextId = 0n;
  events = 0;
  /** Guesses that came true, and that did not. */
  right = 0;
  wrong = 0;

  constructor(private readonly world: World) {
    const limits = { ...world, maxWantedRows: world.maxSequences + 3 };
    this.scheduler = new Scheduler(new BlockPool(world.poolSize), limits);
  }

  /** To the end of the world. */
  run(): void {
    const last = Math.max(...this.world.arrivals.map(({ turn }) => turn));
    for (; this.clock.turn <= last || this.alive.size > 0; this.clock.turn++) {
      assert.ok(this.clock.turn < 20_000, "a sequence starves");
      this.arrive();
      this.step();
    }
    assert.deepEqual([this.scheduler.sequenceCount, this.scheduler.next().length], [0, 0]);
    assert.equal(this.scheduler.pool.usedCount, 0);
  }

  private arrive(): void {
    for (const arrival of this.world.arrivals) {
      if (arrival.turn !== this.clock.turn) continue;
      this.events++;
      const id = this.nextId++;
      const sequence = new TestSequence(this.clock, id, Number(id), arrival);
      this.alive.set(sequence, arrival);
      this.scheduler.add(sequence);
    }
    for (const [sequence, { removal }] of this.alive)
      if (removal === this.clock.turn) this.remove(sequence);
  }

  private remove(sequence: TestSequence): void {
    this.events++;
    this.scheduler.remove(sequence);
    this.ranks.gone(sequence.id);
    this.alive.delete(sequence);
  }

  private step(): void {
    const slices = this.scheduler.next();
    this.events += slices.length;
    this.check(slices);
    this.ranks.apply(slices);
    this.scheduler.computed(slices);
    this.scheduler.audit();
    for (const slice of slices) this.sample(slice);
    this.scheduler.audit();
  }

  private check(slices: Slice[]): void {
    const { maxBatchedTokens, maxSequences } = this.world;
    const sum = (of: (slice: Slice) => number) => slices.reduce((all, one) => all + of(one), 0);
    const tokens = sum(({ count, drafts }) => count + drafts.length);
    assert.ok(tokens <= maxBatchedTokens, "tokens over the budget");
    const wantedRows = sum(({ rows, drafts }) => rows + drafts.length);
    assert.ok(wantedRows <= maxSequences + 3, "wanted rows over the budget");
    assert.ok(slices.length <= maxSequences, "sequences over the limit");
    assert.equal(new Set(slices.map(({ sequence }) => sequence.id)).size, slices.length);
    for (const { sequence, start, count, rows } of slices) {
      assert.ok(sequence.ready && count > 0 && start + count <= sequence.tokenCount);
      assert.equal(sequence.computed, start + count);
      const wanted = (position: number) =>
        position < sequence.wantedBefore || position === sequence.tokenCount - 1;
      const positions = Array.from({ length: count }, (_, i) => start + i);
      assert.equal(rows, positions.filter(wanted).length, "rows that are wanted");
    }
    const able = [...this.alive.keys()].every(({ ready }) => ready) && this.alive.size > 0;
    assert.ok(slices.length > 0 || !able, "a step without work while work waits");
  }

  private sample(slice: Slice): void {
    const { sequence, drafts } = slice;
    if (sequence.computed !== sequence.tokenCount || !this.alive.has(sequence)) return;
    this.fork(sequence);
    const { next } = sequence;
    const wrong = drafts.findIndex((draft) => draft !== next);
    const accepted = wrong < 0 ? drafts.length : wrong;
    for (let i = 0; i <= accepted; i++) sequence.push(next);
    this.scheduler.accepted(slice, accepted);
    this.right += accepted;
    this.wrong += drafts.length - accepted;
    if (sequence.done) this.remove(sequence);
  }

  private fork(parent: TestSequence): void {
    const arrival = this.alive.get(parent);
    if (arrival === undefined || parent.forked || parent.choice > 0) return;
    parent.forked = true;
    for (let choice = 1; choice <= arrival.forks; choice++) {
      const id = this.nextId++;
      const child = new TestSequence(this.clock, id, Number(id), arrival, choice);
      this.alive.set(child, arrival);
      this.scheduler.fork(parent, child);
    }
  }
}

const arrivalOf = (tokens: number) =>
  fc
    .record({
      turn: fc.integer({ min: 0, max: 60 }),
      priority: fc.integer({ min: -1, max: 1 }),
      length: fc.integer({ min: 2, max: Math.min(tokens, 160) }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      removal: fc.oneof(fc.constant(1e9), fc.integer({ min: 1, max: 100 })),
      family: fc.integer({ min: 0, max: 2 }),
      forks: fc.constantFrom(0, 0, 0, 1, 3),
      scored: fc.constantFrom(false, false, false, true),
      maskTurns: fc.constantFrom(0, 0, 0, 2),
      guesses: fc.constantFrom(0, 1, 4, 40),
    })
    .map(({ length, share, ...rest }) => {
      const prompt = 1 + Math.floor(share * (length - 2));
      return { ...rest, prompt, answer: Math.min(length - prompt, 40) };
    });

export const anyWorld: fc.Arbitrary<World> = fc
  .record({
    poolSize: fc.integer({ min: 1, max: 12 }),
    maxBatchedTokens: fc.integer({ min: 1, max: 100 }),
    maxSequences: fc.integer({ min: 1, max: 6 }),
    prefixCache: fc.boolean(),
  })
  .chain((limits) =>
    fc
      .array(arrivalOf(limits.poolSize * BLOCK_TOKENS), { minLength: 1, maxLength: 12 })
      .map((arrivals) => ({ ...limits, arrivals })),
  );

/** Few blocks, prompts about as long as all of them together, and each arrival before the ones that are there. */
export const tightWorld: fc.Arbitrary<World> = fc.integer({ min: 2, max: 5 }).chain((poolSize) => {
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
      prefixCache: fc.boolean(),
      rows: fc.array(arrival, { minLength: 2, maxLength: 6 }),
    })
    .map(({ rows, ...limits }) => {
      let turn = 0;
      const arrivals = rows.map(({ wait, ...rest }, i) => {
        turn += wait;
        const plain = {
          family: i % 2,
          forks: 0,
          scored: false,
          maskTurns: 0,
          guesses: 3 * (i % 2),
        };
        return { ...plain, ...rest, turn, priority: -i, removal: 1e9 };
      });
      return { ...limits, poolSize, maxSequences: 8, arrivals };
    });
});
