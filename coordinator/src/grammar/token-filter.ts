/**
 * Keeps characters beyond ASCII out of an answer, which XGrammar's classes cannot. A character may come in several
 * tokens, so the last bytes of the answer count too.
 */
import type { SharedVocabulary } from "./protocol.js";

export class TokenFilter {
  private readonly sequences: Buffer[];
  /** Tokens that hold a whole one. */
  private readonly always: number[] = [];
  /** Begun sequence, in hex → tokens that complete it. */
  private readonly after = new Map<string, number[]>();
  private readonly longest: number;

  constructor(
    forbidden: readonly number[],
    private readonly vocabulary: SharedVocabulary,
  ) {
    this.sequences = forbidden.map((point) => Buffer.from(String.fromCodePoint(point)));
    this.longest = Math.max(0, ...this.sequences.map((bytes) => bytes.length)) - 1;
    for (let id = 0; id < vocabulary.ends.length; id++) this.sort(id);
  }

  private sort(id: number): void {
    const bytes = Buffer.from(tokenBytes(this.vocabulary, id));
    if (bytes.length === 0) return;
    for (const sequence of this.sequences) {
      if (bytes.includes(sequence)) this.always.push(id);
      for (let split = 1; split < sequence.length; split++) {
        const rest = sequence.subarray(split);
        if (!bytes.subarray(0, rest.length).equals(rest)) continue;
        const key = sequence.toString("hex", 0, split);
        const ids = this.after.get(key) ?? [];
        this.after.set(key, ids);
        ids.push(id);
      }
    }
  }

  /** Last bytes of an answer that matter, after one more token. */
  tail(before: Buffer, tokenId: number): Buffer {
    const all = Buffer.concat([before, tokenBytes(this.vocabulary, tokenId)]);
    return all.subarray(Math.max(0, all.length - this.longest));
  }

  apply(mask: Uint8Array, tail: Buffer): void {
    forbid(mask, this.always);
    for (let from = 0; from < tail.length; from++)
      forbid(mask, this.after.get(tail.toString("hex", from)) ?? []);
  }
}

export function tokenBytes({ bytes, ends }: SharedVocabulary, id: number): Uint8Array {
  return bytes.subarray(id === 0 ? 0 : (ends[id - 1] ?? 0), ends[id] ?? 0);
}

export function forbid(mask: Uint8Array, ids: readonly number[]): void {
  for (const id of ids) mask[id >> 3] = (mask[id >> 3] ?? 0) & ~(1 << (id & 7));
}
