/** Keys of full cache blocks: a SHA-256 chain over all that their keys and values depend on (docs/scheduling.md). */
import { createHash, type Hash } from "node:crypto";
import { BLOCK_TOKENS } from "@tessera/model";
import type { PreparedRequest } from "../request/types.js";

/** Of tiling, resizing and normalising: another one gives other embeddings for the same picture. */
const PREPROCESSING_REVISION = 1;

/** Of the first block's parent: nothing of another model, tenant or salt is ever found. */
export function rootKey(of: { model: string; tenant: string; cacheSalt: string }): string {
  const hash = createHash("sha256");
  for (const part of [of.model, of.tenant, of.cacheSalt, String(PREPROCESSING_REVISION)])
    hash.update(`${Buffer.byteLength(part)}:${part}`);
  return hash.digest("base64");
}

type Content = Pick<PreparedRequest, "imageRows" | "tiles" | "streams" | "sights">;

/** Image rows that stand in [first, end): which rows of which tile. */
function addImageRows(hash: Hash, { imageRows, tiles }: Content, first: number, end: number): void {
  for (const run of imageRows) {
    const from = Math.max(run.position, first);
    const to = Math.min(run.position + run.count, end);
    if (from >= to) continue;
    const row = run.firstRow + from - run.position;
    hash.update(`|rows ${from - first} ${to - from} ${row} ${tiles[run.tile]?.sha256 ?? ""}`);
  }
}

/** What tokens in [first, end) see of images' streams. */
function addSights(hash: Hash, { sights, streams }: Content, first: number, end: number): void {
  sights.forEach(({ position, ranges }, i) => {
    const from = Math.max(position, first);
    const to = Math.min(sights[i + 1]?.position ?? Infinity, end);
    if (from >= to) return;
    hash.update(`|sees ${from - first} ${to - from}`);
    for (const range of ranges)
      hash.update(` ${range.first} ${range.end} ${streams[range.stream]?.key ?? ""}`);
  });
}

/** The chain of one sequence, as far as it was asked for. */
export class BlockKeys {
  private readonly keys: string[] = [];

  constructor(
    private readonly root: string,
    private readonly content: Content,
  ) {}

  /** `tokens`: the sequence's, the whole block among them. */
  keyOf(index: number, tokens: readonly number[]): string {
    for (let at = this.keys.length; at <= index; at++) {
      const first = at * BLOCK_TOKENS;
      const end = first + BLOCK_TOKENS;
      const hash = createHash("sha256").update(this.keys[at - 1] ?? this.root);
      hash.update(Uint32Array.from(tokens.slice(first, end)));
      addImageRows(hash, this.content, first, end);
      addSights(hash, this.content, first, end);
      this.keys.push(hash.digest("base64"));
    }
    return this.keys[index] ?? "";
  }

  /** Of another sequence with the same prompt of `tokenCount` tokens. */
  fork(tokenCount: number): BlockKeys {
    const other = new BlockKeys(this.root, this.content);
    other.keys.push(...this.keys.slice(0, Math.floor(tokenCount / BLOCK_TOKENS)));
    return other;
  }
}
