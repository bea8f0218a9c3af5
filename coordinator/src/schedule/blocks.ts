/** The pool of cache blocks; every block is free or held by one sequence. */
import assert from "node:assert/strict";
import { BLOCK_TOKENS } from "@tessera/model";

/** Blocks needed to hold `tokenCount` tokens; the last may be part-filled. */
export function blockCount(tokenCount: number): number {
  return Math.ceil(tokenCount / BLOCK_TOKENS);
}

export class BlockPool {
  private readonly free: number[];
  private readonly held = new Set<number>();

  constructor(readonly size: number) {
    this.free = Array.from({ length: size }, (_, i) => size - 1 - i);
  }
  get freeCount(): number {
    return this.free.length;
  }
  get usedCount(): number {
    return this.held.size;
  }
  /** Undefined when fewer than `count` are free. */
  take(count: number): number[] | undefined {
    if (count > this.free.length) return undefined;
    const taken = count === 0 ? [] : this.free.splice(-count);
    for (const block of taken) this.held.add(block);
    return taken;
  }
  give(blocks: number[]): void {
    for (const block of blocks) {
      assert(this.held.delete(block), `block ${block} was not held`);
      this.free.push(block);
    }
  }
}
