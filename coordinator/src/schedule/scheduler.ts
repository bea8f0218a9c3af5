/**
 * Continuous batching under a token budget: decode first, then prefill in chunks, by priority and arrival. Blocks that
 * are known by their key are not computed again. When blocks run out, the youngest sequence of the lowest priority
 * gives its blocks back and is computed again later. Pure.
 */
import assert from "node:assert/strict";
import { BLOCK_TOKENS } from "@tessera/model";
import { blockCount, BlockPool } from "./blocks.js";

export interface ScheduledSequence {
  readonly id: bigint;
  /** Lower runs earlier. */
  readonly priority: number;
  /** Rises with each accepted sequence. */
  readonly arrival: number;
  /** Prompt and answer so far. */
  readonly tokenCount: number;
  /** Tokens whose keys and values lie in the cache. */
  computed: number;
  blocks: number[];
  /** How many of them the ranks know of. */
  toldBlocks: number;
  /** Of a fork: a held block whose first tokens become those of the next own one. */
  copyFrom: number | undefined;
  /** Whether its next token can be chosen; false while its mask is being made. */
  readonly ready: boolean;
  /** Whether blocks of others may serve it now. */
  readonly looksUp: boolean;
  /** Positions before this one have their own wanted row; 0: only the last token of all has. */
  readonly wantedBefore: number;
  /** Guesses at the tokens behind its last one, at most so many; none when they are not to be tried. */
  drafts(most: number): readonly number[];
  /** Of its full block `index`. */
  keyOf(index: number): string;
}

export interface BlockCopy {
  from: number;
  to: number;
}

export interface SliceChoice<S> {
  sequence: S;
  start: number;
  count: number;
  /** Index in the sequence's block table of the first block that the ranks do not know of. */
  firstBlock: number;
  /** Behind it. */
  newBlocks: number[];
  /** Whose results are wanted; those of drafts not among them. */
  rows: number;
  copy: BlockCopy | undefined;
  /** Behind the slice's tokens, each with a row that is wanted; what `accepted` does not take leaves no trace. */
  drafts: readonly number[];
}

export interface ScheduleLimits {
  maxBatchedTokens: number;
  /** Sequences of one step. */
  maxSequences: number;
  /** Rows of one step whose results are wanted. */
  maxWantedRows: number;
  /** Whether full blocks are kept and found by their keys. */
  prefixCache: boolean;
}

/** Of prompts that were begun. */
export interface PrefixCounts {
  /** Tokens looked up. */
  queries: number;
  /** Tokens found. */
  hits: number;
}

function order(a: ScheduledSequence, b: ScheduledSequence): number {
  return a.priority - b.priority || a.arrival - b.arrival;
}

interface Budget {
  tokens: number;
  rows: number;
}

export class Scheduler<S extends ScheduledSequence> {
  private readonly sequences = new Map<bigint, S>();
  /** Those that have begun, preempted or not. */
  private readonly begun = new Set<bigint>();
  /** Sources of copies of the step under way. */
  private pinned: number[] = [];
  preemptions = 0;
  readonly prefix: PrefixCounts = { queries: 0, hits: 0 };

  constructor(
    readonly pool: BlockPool,
    private readonly limits: ScheduleLimits,
  ) {}

  get sequenceCount(): number {
    return this.sequences.size;
  }
  get runningCount(): number {
    return [...this.sequences.values()].filter(({ computed }) => computed > 0).length;
  }
  add(sequence: S): void {
    this.sequences.set(sequence.id, sequence);
  }
  remove(sequence: S): void {
    if (!this.sequences.delete(sequence.id)) return;
    this.begun.delete(sequence.id);
    this.release(sequence);
  }

  private release(sequence: S): void {
    this.pool.give(sequence.blocks);
    if (sequence.copyFrom !== undefined) this.pool.give([sequence.copyFrom]);
    sequence.blocks = [];
    sequence.toldBlocks = 0;
    sequence.copyFrom = undefined;
    sequence.computed = 0;
  }

  /**
   * `child` has the tokens of `parent`, whose prompt is computed: it shares its full blocks, is given a copy of the
   * one that is not, and has its last token left to compute.
   */
  fork(parent: S, child: S): void {
    child.computed = child.tokenCount - 1;
    const full = Math.floor(child.computed / BLOCK_TOKENS);
    assert(parent.computed > child.computed, "a fork of a prompt that is not computed");
    child.blocks = parent.blocks.slice(0, full);
    const rest = child.computed % BLOCK_TOKENS;
    child.copyFrom = rest === 0 ? undefined : parent.blocks[full];
    this.begun.add(child.id);
    for (const block of child.blocks) this.pool.share(block);
    if (child.copyFrom !== undefined) this.pool.share(child.copyFrom);
    this.add(child);
  }

  /**
   * The slices of the next step; blocks are taken and `computed` moves on. Never empty while there are sequences and all
   * are ready: the first in order can take every other one's blocks. One that is not ready may hold what others need.
   */
  next(): SliceChoice<S>[] {
    this.pool.give(this.pinned.splice(0));
    const all = [...this.sequences.values()].filter(({ ready }) => ready).sort(order);
    const decoding = all.filter((s) => s.computed > 0 && s.tokenCount - s.computed === 1);
    const chosen = new Map<bigint, SliceChoice<S>>();
    const budget = { tokens: this.limits.maxBatchedTokens, rows: this.limits.maxWantedRows };
    for (const [i, sequence] of [...decoding, ...all].entries()) {
      if (budget.tokens === 0 || chosen.size === this.limits.maxSequences) break;
      if (chosen.has(sequence.id) || sequence.tokenCount === sequence.computed) continue;
      const choice = this.choose(sequence, budget, chosen);
      if (choice !== undefined) chosen.set(sequence.id, choice);
      // No later one goes past it; it may take blocks of those that decode.
      else if (i >= decoding.length) break;
    }
    for (const choice of chosen.values()) this.goOn(choice);
    for (const choice of chosen.values()) this.addDrafts(choice, budget);
    return [...chosen.values()];
  }

  /** Behind a decoding sequence's token, as far as nothing else needs the room: nobody is preempted for a guess. */
  private addDrafts(choice: SliceChoice<S>, budget: Budget): void {
    const { sequence, count } = choice;
    if (count !== 1 || sequence.computed !== sequence.tokenCount) return;
    const drafts = sequence.drafts(Math.min(budget.tokens, budget.rows));
    const { blocks, computed } = sequence;
    const missing = Math.max(0, blockCount(computed + drafts.length) - blocks.length);
    const taken = this.pool.take(Math.min(missing, this.pool.freeCount)) ?? [];
    blocks.push(...taken);
    choice.newBlocks.push(...taken);
    sequence.toldBlocks = blocks.length;
    choice.drafts = drafts.slice(0, blocks.length * BLOCK_TOKENS - computed);
    budget.tokens -= choice.drafts.length;
    budget.rows -= choice.drafts.length;
  }

  /** So many of the slice's drafts are the sequence's own tokens now: they lie in the cache. */
  accepted({ sequence, start, count }: SliceChoice<S>, drafts: number): void {
    // Ended meanwhile.
    if (!this.sequences.has(sequence.id)) return;
    assert(sequence.computed === start + count, `sequence ${sequence.id} has moved on`);
    sequence.computed += drafts;
    this.name(sequence, start + count, drafts);
  }

  private goOn({ sequence, count, copy }: SliceChoice<S>): void {
    sequence.computed += count;
    if (copy === undefined) return;
    this.pinned.push(copy.from);
    sequence.copyFrom = undefined;
  }

  /** The step of these slices has been computed: full blocks can be found from now on. */
  computed(slices: readonly SliceChoice<S>[]): void {
    for (const { sequence, start, count } of slices) {
      // Preempted or ended meanwhile.
      if (sequence.computed >= start + count) this.name(sequence, start, count);
    }
  }

  /** Gives the blocks that these tokens fill their keys. */
  private name(sequence: S, start: number, count: number): void {
    if (!this.limits.prefixCache) return;
    const first = Math.floor(start / BLOCK_TOKENS);
    const end = Math.floor((start + count) / BLOCK_TOKENS);
    for (let index = first; index < end; index++) {
      const block = sequence.blocks[index];
      if (block !== undefined) this.pool.name(block, sequence.keyOf(index));
    }
  }

  /** How many of the sequence's next tokens fit, and the rows that they want. */
  private fit(sequence: S, budget: Budget): { count: number; rows: number } {
    const { computed, tokenCount, wantedBefore } = sequence;
    const most = Math.min(budget.tokens, tokenCount - computed);
    // Rows below `wantedBefore` are wanted one by one, and the last of all.
    const scored = Math.max(0, Math.min(wantedBefore, computed + most) - computed);
    const count = scored > budget.rows ? budget.rows : most;
    const last = computed + count === tokenCount ? 1 : 0;
    const rows = Math.max(0, Math.min(wantedBefore, computed + count, tokenCount - 1) - computed);
    if (rows + last <= budget.rows) return { count, rows: rows + last };
    return { count: count - 1, rows };
  }

  private choose(
    sequence: S,
    budget: Budget,
    chosen: Map<bigint, SliceChoice<S>>,
  ): SliceChoice<S> | undefined {
    const fresh = sequence.computed === 0 && sequence.blocks.length === 0;
    const found = fresh ? this.lookUp(sequence) : 0;
    const { count, rows } = this.fit(sequence, budget);
    const newBlocks = count === 0 ? undefined : this.room(sequence, { count, chosen, budget });
    if (newBlocks === undefined) {
      if (fresh) this.release(sequence);
      return undefined;
    }
    sequence.blocks.push(...newBlocks);
    budget.tokens -= count;
    budget.rows -= rows;
    if (fresh) this.countPrefix(sequence, found);
    const { copyFrom: from, toldBlocks: firstBlock } = sequence;
    sequence.toldBlocks = sequence.blocks.length;
    const [to] = newBlocks;
    return {
      sequence,
      start: sequence.computed,
      count,
      firstBlock,
      newBlocks: sequence.blocks.slice(firstBlock),
      rows,
      copy: from === undefined || to === undefined ? undefined : { from, to },
      drafts: [],
    };
  }

  /** Blocks for `count` more tokens; later sequences give theirs back for it. */
  private room(
    sequence: S,
    of: { count: number; chosen: Map<bigint, SliceChoice<S>>; budget: Budget },
  ): number[] | undefined {
    for (;;) {
      this.adopt(sequence);
      // Drafts that were not accepted may have brought a block before it is needed.
      const needed = Math.max(0, blockCount(sequence.computed + of.count) - sequence.blocks.length);
      if (this.pool.freeCount >= needed) return this.pool.take(needed);
      if (!this.preemptAfter(sequence, of.chosen, of.budget)) return undefined;
    }
  }

  /** A fork whose source nobody else holds any more needs no copy: it goes on in it. */
  private adopt(sequence: S): void {
    const { copyFrom } = sequence;
    if (copyFrom === undefined || this.pool.holdersOf(copyFrom) > 1) return;
    this.pool.unname(copyFrom);
    sequence.blocks.push(copyFrom);
    sequence.copyFrom = undefined;
  }

  /** Holds the blocks that are known of the sequence's beginning; its last token is always computed. → tokens found */
  private lookUp(sequence: S): number {
    if (!this.limits.prefixCache || !sequence.looksUp) return 0;
    const most = Math.floor((sequence.tokenCount - 1) / BLOCK_TOKENS);
    for (let index = 0; index < most; index++) {
      const block = this.pool.find(sequence.keyOf(index));
      if (block === undefined) break;
      this.pool.share(block);
      sequence.blocks.push(block);
    }
    sequence.computed = sequence.blocks.length * BLOCK_TOKENS;
    return sequence.computed;
  }

  private countPrefix(sequence: S, found: number): void {
    const first = !this.begun.has(sequence.id);
    this.begun.add(sequence.id);
    if (!first || !this.limits.prefixCache || !sequence.looksUp) return;
    this.prefix.queries += sequence.tokenCount;
    this.prefix.hits += found;
  }

  /** Takes the blocks of the last sequence behind `sequence`; false when there is none. */
  private preemptAfter(sequence: S, chosen: Map<bigint, SliceChoice<S>>, budget: Budget): boolean {
    const holds = ({ blocks, copyFrom }: S) => blocks.length > 0 || copyFrom !== undefined;
    const victim = [...this.sequences.values()]
      .filter((other) => holds(other) && order(other, sequence) > 0)
      .sort(order)
      .at(-1);
    if (victim === undefined) return false;
    const taken = chosen.get(victim.id);
    if (taken !== undefined) {
      budget.tokens += taken.count;
      budget.rows += taken.rows;
      chosen.delete(victim.id);
    }
    this.release(victim);
    this.preemptions++;
    return true;
  }

  /** @throws AssertionError when blocks are held by nobody, or by one that is gone. */
  audit(): void {
    const held = [...this.sequences.values()].flatMap(({ blocks, copyFrom }) =>
      copyFrom === undefined ? blocks : [...blocks, copyFrom],
    );
    this.pool.audit([...held, ...this.pinned]);
  }
}
