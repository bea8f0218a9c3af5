/** Texts for the tokenizer's tests: random ones, and what is hard for it. */
import fc from "fast-check";

/** Of every class of the split pattern, and what NFC changes. */
const CHARACTERS = [
  ..."aAeEstTdDmMlLrRvV'’ſ0179²Ⅷ.,!?-_<|>/\\\"#$ \t\n\v\f\r\u0085\u00a0\u1680\u2003\u2028\u202f\u3000",
  ..."\u200b\u00ad\ufeff\0\u0007éÅ\u212b漢字가각ㄱ\u1100\u1161\u11a8กำ\u0301\u0323\u0308\u0334\u0345\u0344",
  ..."\u0f71\u0f72\u0f73\u0f81\u093e\u093c\u0915\u0958\u302e𝒜😀👩‍💻\u{1d165}\u{1d16e}",
  "\ud800",
  "\udc00",
  "the",
  " quick",
  "        ",
  "\r\n",
];

/** Up to a few hundred characters, with runs. */
export const randomText = fc
  .array(
    fc.tuple(
      fc.constantFrom(...CHARACTERS),
      fc.oneof(fc.constant(1), fc.integer({ max: 40, min: 1 })),
    ),
    { maxLength: 40 },
  )
  .map((runs) => runs.map(([text, count]) => text.repeat(count)).join(""));

/** Letters without a pattern, the same in every run. */
export function letters(count: number): string {
  let state = 1;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return String.fromCharCode(97 + ((state >>> 8) % 26));
  }).join("");
}

/** Each of about `count` characters. */
export function hostileTexts(count: number): [name: string, text: string][] {
  return [
    ["spaces", " ".repeat(count)],
    ["spaces before a word", `${" ".repeat(count)}a`],
    ["one letter", "a".repeat(count)],
    ["letters", letters(count)],
    ["digits", "7".repeat(count)],
    ["signs", "!?".repeat(count / 2)],
    ["line breaks and spaces", "\n ".repeat(count / 2)],
    ["spaces behind a line break", `\r\n${" ".repeat(count)}x`],
    ["Chinese", "漢字".repeat(count / 2)],
    ["letters beyond the first plane", "𝒜".repeat(count / 2)],
    ["emoji", "😀".repeat(count / 2)],
    ["zero bytes", "\0".repeat(count)],
    ["lone surrogates", "\ud800".repeat(count)],
    ["words", "the quick brown fox ".repeat(count / 20)],
  ];
}
