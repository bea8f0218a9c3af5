/** Seeded randomness: one independent source for each purpose, so that a change of one does not move the others. */
import { createHash } from "node:crypto";
import { randomLcg } from "d3-random";

/** Uniform in [0, 1). */
export type Source = () => number;

/** The same seed and purpose give the same numbers on every machine. */
export function sourceOf(seed: number, purpose: string): Source {
  const digest = createHash("sha256").update(`${seed}/${purpose}`).digest();
  return randomLcg(digest.readUInt32BE() / 2 ** 32);
}

/** A whole number from `least` to `most`, both included. */
export function wholeBetween(source: Source, { least, most }: Span): number {
  return least + Math.floor(source() * (most - least + 1));
}

export interface Span {
  least: number;
  most: number;
}

/** @throws RangeError for an empty list. */
export function pick<T>(source: Source, items: readonly T[]): T {
  const item = items[Math.floor(source() * items.length)];
  if (item === undefined) throw new RangeError("pick: of an empty list");
  return item;
}
