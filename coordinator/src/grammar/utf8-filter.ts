/**
 * Keeps ill-formed UTF-8 out of an answer: XGrammar 0.1.27 takes any byte of 80…BF behind a first byte of C0…F7, and
 * what is no character is read as several U+FFFD, more than a `maxLength` or a pattern allows.
 */
import type { SharedVocabulary } from "./protocol.js";
import { forbid, tokenBytes } from "./token-filter.js";

/** First bytes of no character. */
function neverBegins(byte: number): boolean {
  return byte === 0xc0 || byte === 0xc1 || byte >= 0xf5;
}

/** First bytes whose second one has fewer values than 80…BF. */
const SECONDS: ReadonlyMap<number, readonly [least: number, most: number]> = new Map([
  [0xe0, [0xa0, 0xbf]],
  [0xed, [0x80, 0x9f]],
  [0xf0, [0x90, 0xbf]],
  [0xf4, [0x80, 0x8f]],
]);

function follows(first: number, second: number): boolean {
  const range = SECONDS.get(first);
  if (range === undefined || second < 0x80 || second > 0xbf) return true;
  return second >= range[0] && second <= range[1];
}

export class Utf8Filter {
  /** Tokens that are ill-formed by themselves. */
  private readonly always: number[] = [];
  /** Last byte of the answer → tokens that cannot go on from it. */
  private readonly after = new Map<number, number[]>();

  constructor(vocabulary: SharedVocabulary) {
    for (const first of SECONDS.keys()) this.after.set(first, []);
    for (let id = 0; id < vocabulary.ends.length; id++) this.sort(id, tokenBytes(vocabulary, id));
  }

  private sort(id: number, bytes: Uint8Array): void {
    const [begin] = bytes;
    if (begin === undefined) return;
    if (bytes.some((byte, i) => neverBegins(byte) || !follows(bytes[i - 1] ?? 0, byte)))
      this.always.push(id);
    for (const [first, ids] of this.after) if (!follows(first, begin)) ids.push(id);
  }

  apply(mask: Uint8Array, lastByte: number): void {
    forbid(mask, this.always);
    forbid(mask, this.after.get(lastByte) ?? []);
  }
}
