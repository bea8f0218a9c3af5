/** Text of a wanted number of tokens, from words that the common vocabularies hold as one token each. */
import { pick, type Source } from "./random.js";

const WORDS = [
  ..."time year people way day man thing woman life child world school state family student group country problem".split(
    " ",
  ),
  ..."hand part place case week company system program question work government number night point home water".split(
    " ",
  ),
  ..."room mother area money story fact month lot right study book eye job word business issue side kind head house".split(
    " ",
  ),
];

export function wordsText(source: Source, count: number): string {
  return Array.from({ length: count }, () => pick(source, WORDS)).join(" ");
}

/** Tokens of a prompt of n words are about `fixed` + `perWord` × n, by the server's own count. */
export interface TokenFit {
  /** Of the chat template. */
  fixed: number;
  perWord: number;
}

/** What holds for large vocabularies, where the server counts nothing for us. */
export const ONE_A_WORD: TokenFit = { fixed: 0, perWord: 1 };

/** A line through the counts of two texts. */
export function fitOf(short: Counted, long: Counted): TokenFit {
  const perWord = (long.tokens - short.tokens) / (long.words - short.words);
  if (!(perWord > 0)) return ONE_A_WORD;
  return { perWord, fixed: Math.max(0, short.tokens - perWord * short.words) };
}

export interface Counted {
  words: number;
  tokens: number;
}

/** Words of a text of `tokens`, which are the whole prompt's or a part's without the template. At least one. */
export function wordCountFor(tokens: number, fit: TokenFit, part: "prompt" | "prefix"): number {
  const fixed = part === "prompt" ? fit.fixed : 0;
  return Math.max(1, Math.round((tokens - fixed) / fit.perWord));
}
