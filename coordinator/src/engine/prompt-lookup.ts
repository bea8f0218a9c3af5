/** Where the end of a text stood before: what came behind it then is a guess at what comes next. Pure. */

/** Tokens of an end that is looked for, longest first. One alone says too little. */
export const LONGEST_END = 3;
export const SHORTEST_END = 2;

/** Tokens taken into the indices at once: a long prompt costs no step more than some milliseconds. */
const MOST_AT_ONCE = 4096;

/** A table holds twice as many places as entries at least; a power of two. */
const FIRST_SLOTS = 64;
const NONE = -1;

/** Of runs of `length` tokens: where the latest of each ends. Open addressing; keys are read from the tokens themselves. */
class RunIndex {
  private slots = new Int32Array(FIRST_SLOTS).fill(NONE);
  private entries = 0;

  constructor(private readonly length: number) {}

  private hash(tokens: readonly number[], end: number): number {
    let hash = 0x811c9dc5;
    for (let i = end - this.length; i < end; i++)
      hash = Math.imul(hash ^ (tokens[i] ?? 0), 0x01000193) ^ (hash >>> 15);
    // A slot is named by the low bits alone, ids may differ in the high ones.
    hash = Math.imul(hash ^ (hash >>> 16), 0x2c1b3c6d);
    return (hash ^ (hash >>> 12)) >>> 0;
  }

  private same(tokens: readonly number[], a: number, b: number): boolean {
    for (let i = 1; i <= this.length; i++) if (tokens[a - i] !== tokens[b - i]) return false;
    return true;
  }

  /** The slot of the run that ends before `end`, or the free one where it belongs. */
  private slotOf(tokens: readonly number[], end: number): number {
    const mask = this.slots.length - 1;
    for (let slot = this.hash(tokens, end) & mask; ; slot = (slot + 1) & mask) {
      const known = this.slots[slot] ?? NONE;
      if (known === NONE || this.same(tokens, known, end)) return slot;
    }
  }

  put(tokens: readonly number[], end: number): void {
    if (end < this.length) return;
    if (2 * (this.entries + 1) > this.slots.length) this.grow(tokens);
    const slot = this.slotOf(tokens, end);
    if (this.slots[slot] === NONE) this.entries++;
    this.slots[slot] = end;
  }

  private grow(tokens: readonly number[]): void {
    const ends = this.slots.filter((end) => end !== NONE);
    this.slots = new Int32Array(2 * this.slots.length).fill(NONE);
    for (const end of ends) this.slots[this.slotOf(tokens, end)] = end;
  }

  find(tokens: readonly number[]): number | undefined {
    if (tokens.length < this.length) return undefined;
    const end = this.slots[this.slotOf(tokens, tokens.length)] ?? NONE;
    return end === NONE ? undefined : end;
  }
}

export class PromptLookup {
  private readonly indices = Array.from(
    { length: LONGEST_END - SHORTEST_END + 1 },
    (_, i) => new RunIndex(LONGEST_END - i),
  );
  /** Ends below it are in the indices. */
  private indexed = 0;

  /**
   * Behind which position the end of `tokens` stood before: that of the longest run, the latest of these, as far as
   * they are indexed. The tokens are those of the call before and more.
   */
  find(tokens: readonly number[]): number | undefined {
    const end = Math.min(tokens.length, this.indexed + MOST_AT_ONCE);
    for (; this.indexed < end; this.indexed++)
      for (const index of this.indices) index.put(tokens, this.indexed);
    for (const index of this.indices) {
      const end = index.find(tokens);
      if (end !== undefined) return end;
    }
    return undefined;
  }
}

/**
 * Up to `most` tokens from position `from` on. Behind the last token they go on with themselves, so that what repeats is
 * guessed to repeat. Ends before a position that `may` refuses.
 */
export function continuation(
  tokens: readonly number[],
  from: number,
  of: { most: number; may: (tokenId: number, position: number) => boolean },
): number[] {
  const drafts: number[] = [];
  while (drafts.length < of.most) {
    const position = from + drafts.length;
    const token = tokens[position] ?? drafts[position - tokens.length];
    if (token === undefined || !of.may(token, position)) break;
    drafts.push(token);
  }
  return drafts;
}
