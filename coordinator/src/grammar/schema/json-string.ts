/** Characters of JSON strings, and expressions over plain text → the same inside a JSON string. */
import {
  charSet,
  charsOf,
  complement,
  intersect,
  isEmpty,
  pointOf,
  sizeOf,
  subtract,
  union,
  type CharSet,
} from "../char-set.js";
import { alt, NEVER, oneOf, repeat, seq, text, type Expression } from "../expression.js";

const CONTROLS = charSet([[0, 0x1f]]);
const SHORT_ESCAPES = '"\\\b\f\n\r\t';
const ESCAPED = union(CONTROLS, charsOf('"\\'));
/** What stands for itself in a JSON string. */
export const PLAIN = complement(ESCAPED);
/** A class of more is written without its escaped members: one class is far faster than a choice of three. */
const WIDE = 1000;

/** `"\n"`, `"\""` …, and `\u00XX` of other controls: none that could stand for a character of `PLAIN` but `\/`. */
export const ESCAPE: Expression = seq(
  text("\\"),
  alt(
    oneOf(charsOf('"\\/bfnrt')),
    seq(text("u00"), oneOf(charsOf("01")), oneOf(charsOf("0123456789abcdefABCDEF"))),
  ),
);

function escapedLetter(letter: string): string {
  return JSON.stringify(letter).slice(1, -1);
}

function encodeSet(set: CharSet): Expression {
  const plain = intersect(set, PLAIN);
  if (sizeOf(plain) > WIDE) return oneOf(plain);
  const short = Array.from(SHORT_ESCAPES).filter((letter) => has(set, letter));
  const others = subtract(intersect(set, CONTROLS), charsOf(SHORT_ESCAPES));
  const ways = [
    ...(isEmpty(plain) ? [] : [oneOf(plain)]),
    ...short.map((letter) => text(escapedLetter(letter))),
  ];
  const rare = others.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) =>
      text(escapedLetter(String.fromCodePoint(first + i))),
    ),
  );
  return ways.length === 0 ? (rare.length === 0 ? NEVER : alt(...rare)) : alt(...ways);
}

function has(set: CharSet, letter: string): boolean {
  const point = pointOf(letter);
  return set.some(([first, last]) => first <= point && point <= last);
}

/** An expression over plain text, without rules, as it stands between quotes. */
export function encodeInString(part: Expression): Expression {
  switch (part.kind) {
    case "text":
      return text(Array.from(part.text, escapedLetter).join(""));
    case "set":
      return encodeSet(part.set);
    case "seq":
      return seq(...part.parts.map(encodeInString));
    case "alt":
      return alt(...part.parts.map(encodeInString));
    case "repeat":
      return repeat(encodeInString(part.part), part.min, part.max);
    case "rule":
      throw new Error("a pattern has no rules");
  }
}
