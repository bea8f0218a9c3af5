/**
 * Qwen2's split pattern, by hand: a regular expression's stack overflows on runs of millions of characters. The pattern:
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */

/** Unicode's White_Space, not JavaScript's `\s`. */
const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new Set(
  [..."\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000"]
    .map((space) => space.charCodeAt(0))
    .concat(Array.from({ length: 11 }, (_, i) => 0x2000 + i)),
);
const LINE_FEED = 10;
const RETURN = 13;

/** One match of an expression takes so many characters at most. */
const RUN = 4096;
const ENDING = /'(?:[sS\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])/uy;
const WORD_START = /[^\r\n\p{L}\p{N}]?\p{L}/uy;
const LETTERS = new RegExp(`\\p{L}{1,${RUN}}`, "uy");
const NUMBER = /\p{N}/uy;
const SIGN_START = new RegExp(` ?[^${SPACE}\\p{L}\\p{N}]`, "uy");
const SIGNS = new RegExp(`[^${SPACE}\\p{L}\\p{N}]{1,${RUN}}`, "uy");

/** Where a match from `start` on ends; -1: none. */
function match(expression: RegExp, text: string, start: number): number {
  expression.lastIndex = start;
  return expression.test(text) ? expression.lastIndex : -1;
}

/** The end of as many matches one after another as there are. */
function matchAll(expression: RegExp, text: string, start: number): number {
  let end = start;
  for (let next = end; next !== -1; next = match(expression, text, end)) end = next;
  return end;
}

function isBreak(code: number): boolean {
  return code === LINE_FEED || code === RETURN;
}

/** Up to the last line break; else without the last space, which belongs to what follows. */
function spacesEnd(text: string, start: number): number {
  let end = start;
  let lines = start;
  while (end < text.length && SPACES.has(text.charCodeAt(end)))
    if (isBreak(text.charCodeAt(end++))) lines = end;
  if (lines > start) return lines;
  return end === text.length ? end : Math.max(end - 1, start + 1);
}

/** The end of the piece that begins at `start`, which is before the text's end. */
export function pieceEnd(text: string, start: number): number {
  const ending = match(ENDING, text, start);
  if (ending !== -1) return ending;
  const word = match(WORD_START, text, start);
  if (word !== -1) return matchAll(LETTERS, text, word);
  const number = match(NUMBER, text, start);
  if (number !== -1) return number;
  const sign = match(SIGN_START, text, start);
  if (sign === -1) return spacesEnd(text, start);
  let end = matchAll(SIGNS, text, sign);
  while (end < text.length && isBreak(text.charCodeAt(end))) end++;
  return end;
}
