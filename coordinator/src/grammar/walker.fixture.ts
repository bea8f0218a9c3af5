/** Draws tokens at random under masks, as a model at temperature 1 that knows nothing would. */
import type { Grammar, Matcher, TokenMask } from "../request/constraint.js";
import type { Tokenizer } from "../request/tokenizer.js";

/** Mulberry32: a seeded source of [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function allowedIds(mask: TokenMask): number[] {
  const ids: number[] = [];
  mask.forEach((byte, at) => {
    for (let bit = 0; byte >> bit !== 0; bit++) if ((byte >> bit) & 1) ids.push(at * 8 + bit);
  });
  return ids;
}

export interface Walk {
  text: string;
  tokens: number[];
  /** By a stop token; else by `lengthMax`, or by `failure`. */
  ended: boolean;
  failure: string | undefined;
}

export interface WalkOptions {
  tokenizer: Tokenizer;
  stopIds: readonly number[];
  seed: number;
  lengthMax: number;
}

/** Share of the draws that prefer a stop, a closing mark or a quote where one may come: answers end at some time. */
const CLOSE = 0.3;

export async function walk(grammar: Grammar, options: WalkOptions): Promise<Walk> {
  const matcher = grammar.open();
  try {
    return await drawAll(matcher, options);
  } finally {
    matcher.close();
  }
}

async function drawAll(matcher: Matcher, options: WalkOptions): Promise<Walk> {
  const { tokenizer, stopIds, lengthMax } = options;
  const random = seeded(options.seed);
  const closing = closingIds(tokenizer);
  const tokens: number[] = [];
  await matcher.ready;
  while (!matcher.ended && matcher.failure === undefined && tokens.length < lengthMax) {
    const ids = allowedIds(matcher.mask ?? new Uint8Array());
    const stops = ids.filter((id) => stopIds.includes(id));
    const closers = ids.filter((id) => closing.has(id));
    const preferred = stops.length > 0 ? stops : closers;
    const from = preferred.length > 0 && random() < CLOSE ? preferred : ids;
    const token = from[Math.floor(random() * from.length)] ?? 0;
    matcher.accept(token);
    tokens.push(token);
    await matcher.ready;
  }
  const text = Buffer.concat(
    tokens.filter((id) => !stopIds.includes(id)).map((id) => tokenizer.tokenBytes(id)),
  ).toString();
  return { text, tokens, ended: matcher.ended, failure: matcher.failure?.message };
}

const closingOf = new WeakMap<Tokenizer, Set<number>>();

function closingIds(tokenizer: Tokenizer): Set<number> {
  const known = closingOf.get(tokenizer);
  if (known !== undefined) return known;
  const ids = Array.from({ length: tokenizer.size }, (_, id) => id).filter((id) =>
    /["}\]]/.test(Buffer.from(tokenizer.tokenBytes(id)).toString()),
  );
  const made = new Set(ids);
  closingOf.set(tokenizer, made);
  return made;
}

/** Feeds a text's bytes, token by token of one byte each: whether the grammar lets it through, and may end there. */
export async function accepts(
  grammar: Grammar,
  text: string,
  of: { tokenizer: Tokenizer; stopIds: readonly number[] },
): Promise<boolean> {
  const matcher = grammar.open();
  try {
    for (const id of of.tokenizer.encode(text, { special: false })) {
      await matcher.ready;
      if (!allows(matcher, id)) return false;
      matcher.accept(id);
    }
    await matcher.ready;
    return of.stopIds.some((id) => allows(matcher, id));
  } finally {
    matcher.close();
  }
}

function allows(matcher: Matcher, id: number): boolean {
  return (((matcher.mask?.[id >> 3] ?? 0) >> (id & 7)) & 1) === 1;
}
