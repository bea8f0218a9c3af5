/**
 * Continuous batching under a token budget: decode first, then prefill in chunks, by priority and arrival. When blocks
 * run out, the youngest sequence of the lowest priority gives its blocks back and is computed again later. Pure.
 */
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
}

export interface SliceChoice<S> {
  sequence: S;
  start: number;
  count: number;
  /** Index in the sequence's block table of the first block it does not know of. */
  firstBlock: number;
  newBlocks: number[];
}

export interface ScheduleLimits {
  maxBatchedTokens: number;
  /** Sequences of one step. */
  maxSequences: number;
}

function order(a: ScheduledSequence, b: ScheduledSequence): number {
  return a.priority - b.priority || a.arrival - b.arrival;
}

export class Scheduler<S extends ScheduledSequence> {
  private readonly sequences = new Map<bigint, S>();
  preemptions = 0;

  constructor(
    readonly pool: BlockPool,
    private readonly limits: ScheduleLimits,
  ) {}

  get sequenceCount(): number {
    return this.sequences.size;
  }
  get runningCount(): number {
    return [...this.sequences.values()].filter((sequence) => sequence.blocks.length > 0).length;
  }
  add(sequence: S): void {
    this.sequences.set(sequence.id, sequence);
  }
  remove(sequence: S): void {
    if (!this.sequences.delete(sequence.id)) return;
    this.pool.give(sequence.blocks);
    sequence.blocks = [];
  }

  /**
   * The slices of the next step; blocks are taken and `computed` moves on. Never empty while a sequence has a token to
   * compute: the first in order can take every other one's blocks.
   */
  next(): SliceChoice<S>[] {
    const all = [...this.sequences.values()].sort(order);
    const decoding = all.filter((s) => s.blocks.length > 0 && s.tokenCount - s.computed === 1);
    const chosen = new Map<bigint, SliceChoice<S>>();
    let budget = this.limits.maxBatchedTokens;
    for (const [i, sequence] of [...decoding, ...all].entries()) {
      if (budget === 0 || chosen.size === this.limits.maxSequences) break;
      if (chosen.has(sequence.id) || sequence.tokenCount === sequence.computed) continue;
      const choice = this.choose(sequence, budget, chosen);
      if (choice !== undefined) {
        budget -= choice.count;
        chosen.set(sequence.id, choice);
      } else if (i >= decoding.length) break; // No later one goes past it; it may take blocks of those that decode.
    }
    for (const { sequence, count } of chosen.values()) sequence.computed += count;
    return [...chosen.values()];
  }

  private choose(
    sequence: S,
    budget: number,
    chosen: Map<bigint, SliceChoice<S>>,
  ): SliceChoice<S> | undefined {
    const count = Math.min(budget, sequence.tokenCount - sequence.computed);
    const firstBlock = sequence.blocks.length;
    const needed = blockCount(sequence.computed + count) - firstBlock;
    while (this.pool.freeCount < needed) if (!this.preemptAfter(sequence, chosen)) return undefined;
    const newBlocks = this.pool.take(needed) ?? [];
    sequence.blocks.push(...newBlocks);
    return { sequence, start: sequence.computed, count, firstBlock, newBlocks };
  }

  /** Takes the blocks of the last sequence behind `sequence`; false when there is none. */
  private preemptAfter(sequence: S, chosen: Map<bigint, SliceChoice<S>>): boolean {
    const victim = [...this.sequences.values()]
      .filter((other) => other.blocks.length > 0 && order(other, sequence) > 0)
      .sort(order)
      .at(-1);
    if (victim === undefined) return false;
    chosen.delete(victim.id);
    this.pool.give(victim.blocks);
    victim.blocks = [];
    victim.computed = 0;
    this.preemptions++;
    return true;
  }
}
