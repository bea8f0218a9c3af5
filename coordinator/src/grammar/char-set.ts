/** Sets of code points as sorted ranges that do not touch; surrogates are never in one. */
export type CharSet = readonly (readonly [first: number, last: number])[];

const LAST = 0x10ffff;
const SURROGATES: readonly [number, number] = [0xd800, 0xdfff];

/** Ranges in any order, overlapping or not → a set. */
export function charSet(ranges: Iterable<readonly [number, number]>): CharSet {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0]);
  const joined: [number, number][] = [];
  for (const [first, last] of sorted) {
    const before = joined.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else joined.push([first, last]);
  }
  return joined.flatMap(withoutSurrogates);
}

function withoutSurrogates([first, last]: readonly [number, number]): [number, number][] {
  const parts: [number, number][] = [
    [first, Math.min(last, SURROGATES[0] - 1)],
    [Math.max(first, SURROGATES[1] + 1), last],
  ];
  if (last < SURROGATES[0] || first > SURROGATES[1]) return [[first, last]];
  return parts.filter((part) => part[0] <= part[1]);
}

export function charsOf(text: string): CharSet {
  return charSet(Array.from(text, (letter) => [pointOf(letter), pointOf(letter)] as const));
}

export function pointOf(letter: string): number {
  return letter.codePointAt(0) ?? 0;
}

export function union(...sets: CharSet[]): CharSet {
  return charSet(sets.flat());
}

export function complement(set: CharSet): CharSet {
  const ranges: [number, number][] = [];
  let next = 0;
  for (const [first, last] of set) {
    if (first > next) ranges.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= LAST) ranges.push([next, LAST]);
  return charSet(ranges);
}

export function intersect(a: CharSet, b: CharSet): CharSet {
  return charSet(
    a.flatMap(([first, last]) =>
      b
        .map(([from, to]) => [Math.max(first, from), Math.min(last, to)] as const)
        .filter(([from, to]) => from <= to),
    ),
  );
}

export function subtract(a: CharSet, b: CharSet): CharSet {
  return intersect(a, complement(b));
}

export function sizeOf(set: CharSet): number {
  return set.reduce((sum, [first, last]) => sum + last - first + 1, 0);
}

export function isEmpty(set: CharSet): boolean {
  return set.length === 0;
}

export const ASCII: CharSet = [[0, 0x7f]];
export const BEYOND_ASCII: CharSet = charSet([[0x80, LAST]]);
export const ALL: CharSet = charSet([[0, LAST]]);
