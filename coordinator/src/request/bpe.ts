/**
 * Plain text → token ids by byte-level BPE: NFC, Qwen2's split pattern, then the pair of the lowest rank is merged, the
 * leftmost first. A piece of n bytes takes O(n log n) time and about 30 n bytes of memory. The tables lie in shared
 * memory: a thread needs nothing else.
 */
import { nfc } from "./nfc.js";
import { pieceEnd } from "./split.js";

/** Pieces that are kept with their ids. A longer slice of a text would keep the whole text. */
const KEPT_PIECES = 16_384;
const KEPT_LENGTH = 12;

/** Symbols are numbers: 0…255 the bytes, then what merges make. Arrays are views of shared memory. */
export interface BpeTables {
  /** [slot] of a hash table of pairs; `rank` is -1 where a slot is free. */
  left: Int32Array;
  right: Int32Array;
  rank: Int32Array;
  /** [rank] the symbol that the pair becomes. */
  product: Int32Array;
  /** [symbol] token id; -1: none, the symbol is left out. */
  idOf: Int32Array;
  /** [id] bytes of its text. */
  byteCount: Int32Array;
}

function shared(length: number, value = 0): Int32Array {
  const bytes = length * Int32Array.BYTES_PER_ELEMENT;
  return new Int32Array(new SharedArrayBuffer(bytes)).fill(value);
}

/** Of a pair, before it is cut to the table's size (a power of two). */
function hash(left: number, right: number): number {
  const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
  return mixed ^ (mixed >>> 15);
}

/** The slot of a pair, or the free one where it belongs. */
function slotOf(tables: Pick<BpeTables, "left" | "right" | "rank">, left: number, right: number) {
  const mask = tables.rank.length - 1;
  let slot = hash(left, right) & mask;
  while (tables.rank[slot] !== -1 && (tables.left[slot] !== left || tables.right[slot] !== right))
    slot = (slot + 1) & mask;
  return slot;
}

export interface BpeSource {
  /** [byte] its letter in the vocabulary. */
  letters: readonly string[];
  vocab: Record<string, number>;
  /** In order of rank: pairs, or two texts with a space between. */
  merges: unknown[];
  /** [id] bytes of its text. */
  byteCounts: number[];
}

function pairOf(merge: unknown): [string, string] {
  const [left = "", right = ""] = Array.isArray(merge)
    ? (merge as string[])
    : String(merge).split(" ", 2);
  return [left, right];
}

export function bpeTables({ letters, vocab, merges, byteCounts }: BpeSource): BpeTables {
  const symbols = new Map(letters.map((letter, byte) => [letter, byte]));
  const symbolOf = (text: string) => {
    const symbol = symbols.get(text) ?? symbols.size;
    symbols.set(text, symbol);
    return symbol;
  };
  const slots = 2 ** Math.ceil(Math.log2(2 * merges.length + 2));
  const pairs = { left: shared(slots), right: shared(slots), rank: shared(slots, -1) };
  const product = shared(merges.length);
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = pairOf(merge);
    const [a, b] = [symbolOf(left), symbolOf(right)];
    const slot = slotOf(pairs, a, b);
    pairs.left[slot] = a;
    pairs.right[slot] = b;
    pairs.rank[slot] = rank;
    product[rank] = symbolOf(left + right);
  }
  const known = new Map(Object.entries(vocab));
  const idOf = shared(symbols.size, -1);
  for (const [text, symbol] of symbols) idOf[symbol] = known.get(text) ?? -1;
  const byteCount = shared(byteCounts.length);
  byteCount.set(byteCounts);
  return { ...pairs, product, idOf, byteCount };
}

/** Numbers in rising order. Keys are rank × 2³² + place, exact in a double. */
class Heap {
  private keys: Float64Array;
  private size = 0;
  constructor(room: number) {
    this.keys = new Float64Array(room);
  }
  push(key: number): void {
    if (this.size === this.keys.length) {
      const larger = new Float64Array(2 * this.size);
      larger.set(this.keys);
      this.keys = larger;
    }
    const { keys } = this;
    let at = this.size++;
    while (at > 0) {
      const up = (at - 1) >> 1;
      const above = keys[up] ?? 0;
      if (above <= key) break;
      keys[at] = above;
      at = up;
    }
    keys[at] = key;
  }
  /** -1 when it is empty. */
  pop(): number {
    const { keys } = this;
    if (this.size === 0) return -1;
    const top = keys[0] ?? 0;
    const last = keys[--this.size] ?? 0;
    let at = 0;
    for (let down = 1; down < this.size; down = 2 * at + 1) {
      if (down + 1 < this.size && (keys[down + 1] ?? 0) < (keys[down] ?? 0)) down++;
      const below = keys[down] ?? 0;
      if (below >= last) break;
      keys[at] = below;
      at = down;
    }
    keys[at] = last;
    return top;
  }
}

const RANK_UNIT = 2 ** 32;

export interface PlainText {
  text: string;
  /** A character of it, of which `before` is told. */
  mark?: number | undefined;
}
export interface EncodedText {
  ids: Int32Array<ArrayBuffer>;
  /** How many of the ids end before or at `mark`; 0 without one. */
  before: number;
}

export class Bpe {
  private kept = new Map<string, number[]>();
  constructor(readonly tables: BpeTables) {}

  /** Lone surrogates become U+FFFD. */
  encode(text: string): Int32Array<ArrayBuffer> {
    const whole = nfc(text.toWellFormed());
    const ids = new Int32Array(Buffer.byteLength(whole));
    let count = 0;
    for (let start = 0, end = 0; start < whole.length; start = end) {
      end = pieceEnd(whole, start);
      for (const id of this.idsOf(whole.slice(start, end))) ids[count++] = id;
    }
    return ids.slice(0, count);
  }

  encodeMarked({ text, mark }: PlainText): EncodedText {
    const ids = this.encode(text);
    if (mark === undefined) return { ids, before: 0 };
    const limit = Buffer.byteLength(nfc(text.slice(0, mark)));
    let end = 0;
    const first = ids.findIndex((id) => (end += this.tables.byteCount[id] ?? 0) > limit);
    return { ids, before: first === -1 ? ids.length : first };
  }

  private idsOf(piece: string): ArrayLike<number> & Iterable<number> {
    if (piece.length > KEPT_LENGTH) return this.merge(piece);
    const known = this.kept.get(piece);
    if (known !== undefined) return known;
    const ids = [...this.merge(piece)];
    if (this.kept.size === KEPT_PIECES) this.kept = new Map();
    this.kept.set(piece, ids);
    return ids;
  }

  /** -1: not merged. */
  private rankOf(left: number, right: number): number {
    return this.tables.rank[slotOf(this.tables, left, right)] ?? -1;
  }

  /** A place is a symbol's first byte; a merged pair keeps the left one's place. */
  private merge(piece: string): Int32Array {
    const bytes = Buffer.from(piece, "utf8");
    const { length } = bytes;
    const symbols = Int32Array.from(bytes);
    const next = Int32Array.from(bytes, (_, i) => i + 1);
    const previous = Int32Array.from(bytes, (_, i) => i - 1);
    const heap = new Heap(length);
    const rankAt = (place: number) => {
      const after = next[place] ?? length;
      return after >= length ? -1 : this.rankOf(symbols[place] ?? 0, symbols[after] ?? 0);
    };
    const note = (place: number) => {
      const rank = rankAt(place);
      if (rank >= 0) heap.push(rank * RANK_UNIT + place);
    };
    for (let place = 0; place < length - 1; place++) note(place);
    for (let key = heap.pop(); key >= 0; key = heap.pop()) {
      const rank = Math.floor(key / RANK_UNIT);
      const place = key - rank * RANK_UNIT;
      // An older note: the place is merged away, or its pair is another by now.
      if (symbols[place] === -1 || rankAt(place) !== rank) continue;
      const gone = next[place] ?? length;
      const after = next[gone] ?? length;
      symbols[place] = this.tables.product[rank] ?? 0;
      symbols[gone] = -1;
      next[place] = after;
      if (after < length) previous[after] = place;
      note(place);
      const before = previous[place] ?? -1;
      if (before >= 0) note(before);
    }
    const left = symbols.filter((symbol) => symbol >= 0);
    return left.map((symbol) => this.tables.idOf[symbol] ?? -1).filter((id) => id >= 0);
  }
}
