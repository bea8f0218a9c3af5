/**
 * The pool of cache blocks. A block is free, held by one sequence or several, or idle: full, known by its key, held by
 * nobody, and kept until its room is needed. Pure.
 */
import assert from "node:assert/strict";
import { BLOCK_TOKENS } from "@tessera/model";

/** Blocks needed to hold `tokenCount` tokens; the last may be part-filled. */
export function blockCount(tokenCount: number): number {
  return Math.ceil(tokenCount / BLOCK_TOKENS);
}

export class BlockPool {
  /** Known by no key. */
  private readonly blank: number[];
  private readonly holders = new Map<number, number>();
  private readonly byKey = new Map<string, number>();
  private readonly keys = new Map<number, string>();
  /** The one left longest ago first. */
  private readonly idle = new Set<number>();
  /** Idle blocks that lost their key to another use. */
  evictions = 0;

  constructor(readonly size: number) {
    this.blank = Array.from({ length: size }, (_, i) => size - 1 - i);
  }
  /** What can be taken. */
  get freeCount(): number {
    return this.blank.length + this.idle.size;
  }
  get usedCount(): number {
    return this.holders.size;
  }
  get idleCount(): number {
    return this.idle.size;
  }
  holdersOf(block: number): number {
    return this.holders.get(block) ?? 0;
  }

  /** Blocks whose content does not matter; undefined when fewer than `count` are free. */
  take(count: number): number[] | undefined {
    if (count > this.freeCount) return undefined;
    const taken = count === 0 ? [] : this.blank.splice(-count);
    for (const block of this.idle) {
      if (taken.length === count) break;
      this.forget(block);
      taken.push(block);
      this.evictions++;
    }
    for (const block of taken) this.holders.set(block, 1);
    return taken;
  }

  private forget(block: number): void {
    this.idle.delete(block);
    this.unname(block);
  }

  find(key: string): number | undefined {
    return this.byKey.get(key);
  }

  /** One more holder of a block that is held or idle. */
  share(block: number): void {
    const holders = this.holders.get(block) ?? 0;
    assert(holders > 0 || this.idle.delete(block), `block ${block} is neither held nor idle`);
    this.holders.set(block, holders + 1);
  }

  /** A held block is full and computed: others may find it. False when another one has the key already. */
  name(block: number, key: string): boolean {
    assert(this.holders.has(block), `block ${block} is not held`);
    if (this.byKey.has(key) || this.keys.has(block)) return this.keys.get(block) === key;
    this.keys.set(block, key);
    this.byKey.set(key, block);
    return true;
  }

  /** A held block will have another content. */
  unname(block: number): void {
    const key = this.keys.get(block);
    if (key === undefined) return;
    this.keys.delete(block);
    this.byKey.delete(key);
  }

  /** A holder leaves. The last of them goes first when room is needed: it is of use only behind the others. */
  give(blocks: number[]): void {
    for (const block of [...blocks].reverse()) {
      const holders = this.holders.get(block);
      assert(holders !== undefined, `block ${block} was not held`);
      if (holders > 1) this.holders.set(block, holders - 1);
      else {
        this.holders.delete(block);
        if (this.keys.has(block)) this.idle.add(block);
        else this.blank.push(block);
      }
    }
  }

  /** @throws AssertionError when `held`, the blocks of all holders, is not what the pool has noted. */
  audit(held: Iterable<number>): void {
    const counted = new Map<number, number>();
    for (const block of held) counted.set(block, (counted.get(block) ?? 0) + 1);
    assert.deepEqual(counted, this.holders, "blocks held and blocks noted as held");
    const all = this.blank.length + this.idle.size + this.holders.size;
    assert.equal(all, this.size, "blocks free, idle and held");
    for (const block of this.idle) assert(this.keys.has(block), `idle block ${block} has no key`);
    for (const block of this.blank) assert(!this.keys.has(block), `blank block ${block} has a key`);
  }
}
