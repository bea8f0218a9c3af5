/** ECMAScript regular expressions, as JSON Schema has them, → expressions. Parsed, never run. */
import { RegExpParser, type AST } from "@eslint-community/regexpp";
import { charSet, charsOf, complement, union, type CharSet } from "./char-set.js";
import { alt, EMPTY, oneOf, repeat, seq, text, type Expression } from "./expression.js";
import { Refusal } from "./refusal.js";

/** One way through a pattern. `open`: more text may stand before or after, as no `^` or `$` ends it there. */
export interface PatternWay {
  core: Expression;
  openStart: boolean;
  openEnd: boolean;
}

const LINE_ENDS = charsOf("\n\r\u2028\u2029");
const DIGITS = charSet([[0x30, 0x39]]);
const WORD = charSet([
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x61, 0x7a],
  [0x5f, 0x5f],
]);
const SPACES = union(
  charsOf("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"),
  charSet([[0x2000, 0x200a]]),
);

/** @throws Refusal on what is no pattern, or what no grammar can say. */
export function readPattern(pattern: string): PatternWay[] {
  let parsed: AST.Pattern;
  try {
    parsed = new RegExpParser({ ecmaVersion: 2024 }).parsePattern(pattern, 0, pattern.length, {
      unicode: true,
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Refusal(`no regular expression of ECMAScript's Unicode mode: ${why}`);
  }
  return parsed.alternatives.flatMap(waysOf);
}

/** Edge assertions are understood at the ends, and in a group that is the whole alternative. */
function waysOf(alternative: AST.Alternative): PatternWay[] {
  const elements = [...alternative.elements];
  const openStart = !isEdge(elements[0], "start");
  while (isEdge(elements[0], "start")) elements.shift();
  const openEnd = !isEdge(elements.at(-1), "end");
  while (isEdge(elements.at(-1), "end")) elements.pop();
  const [only] = elements;
  if (elements.length === 1 && (only?.type === "Group" || only?.type === "CapturingGroup")) {
    refuseModifiers(only);
    return only.alternatives.flatMap(waysOf).map((way) => ({
      core: way.core,
      openStart: openStart && way.openStart,
      openEnd: openEnd && way.openEnd,
    }));
  }
  return [{ core: seq(...elements.map(elementOf)), openStart, openEnd }];
}

function isEdge(element: AST.Element | undefined, kind: "start" | "end"): boolean {
  return element?.type === "Assertion" && element.kind === kind;
}

function refuseModifiers(group: AST.Group | AST.CapturingGroup): void {
  if (group.type === "Group" && group.modifiers !== null)
    throw new Refusal(`${group.raw}: modifiers are not supported`);
}

function elementOf(element: AST.Element): Expression {
  switch (element.type) {
    case "Group":
    case "CapturingGroup":
      refuseModifiers(element);
      return alt(...element.alternatives.map((each) => seq(...each.elements.map(elementOf))));
    case "Quantifier":
      return quantified(element);
    case "Character":
      return text(String.fromCodePoint(element.value));
    case "CharacterSet":
    case "CharacterClass":
      return oneOf(setOf(element));
    case "Assertion":
    case "Backreference":
    case "ExpressionCharacterClass":
      throw new Refusal(`${element.raw}: not supported here (assertions, references to groups)`);
  }
}

function quantified({ element, min, max, raw }: AST.Quantifier): Expression {
  if (element.type === "Assertion") throw new Refusal(`${raw}: not supported here`);
  const part = elementOf(element);
  if (max === 0) return EMPTY;
  return repeat(part, min, max === Infinity ? undefined : max);
}

type SetNode = AST.CharacterSet | AST.CharacterClass | AST.CharacterClassRange | AST.Character;

function setOf(node: SetNode | AST.ClassRangesCharacterClassElement): CharSet {
  switch (node.type) {
    case "Character":
      return charSet([[node.value, node.value]]);
    case "CharacterClassRange":
      return charSet([[node.min.value, node.max.value]]);
    case "CharacterClass": {
      if (node.unicodeSets) throw new Refusal(`${node.raw}: not supported`);
      const inside = union(...node.elements.map(setOf));
      return node.negate ? complement(inside) : inside;
    }
    case "CharacterSet":
      return namedSet(node);
  }
}

function namedSet(node: AST.CharacterSet): CharSet {
  if (node.kind === "any") return complement(LINE_ENDS);
  if (node.kind === "property") throw new Refusal(`${node.raw}: Unicode properties not supported`);
  const set = { digit: DIGITS, space: SPACES, word: WORD }[node.kind];
  return node.negate ? complement(set) : set;
}

/** Fewest and most characters; undefined: no bound. */
export function lengthOf(part: Expression): [min: number, max: number | undefined] {
  switch (part.kind) {
    case "text": {
      const count = Array.from(part.text).length;
      return [count, count];
    }
    case "set":
      return [1, 1];
    case "seq":
      return part.parts.map(lengthOf).reduce(addLengths, [0, 0]);
    case "alt": {
      const each = part.parts.map(lengthOf);
      const most = each.map(([, max]) => max);
      return [
        Math.min(...each.map(([min]) => min)),
        most.some((max) => max === undefined)
          ? undefined
          : Math.max(...most.map((max) => max ?? 0)),
      ];
    }
    case "repeat": {
      const [min, max] = lengthOf(part.part);
      const most = max === 0 ? 0 : max === undefined ? undefined : times(max, part.max);
      return [min * part.min, most];
    }
    case "rule":
      throw new Error("a pattern has no rules");
  }
}

function times(count: number, max: number | undefined): number | undefined {
  return max === undefined ? undefined : count * max;
}

type Length = [min: number, max: number | undefined];

function addLengths([min, max]: Length, [more, most]: Length): Length {
  return [min + more, max === undefined || most === undefined ? undefined : max + most];
}

export interface LengthBounds {
  min: number;
  max: number | undefined;
}

/**
 * Texts of a way that have a length within bounds; undefined when none was found. May leave some out, never lets a
 * wrong one in: text before and after is shared out, else one counted class is narrowed.
 */
export function fitLength(
  way: PatternWay,
  any: CharSet,
  bounds: LengthBounds,
): Expression | undefined {
  const [min, max] = lengthOf(way.core);
  if (way.openStart || way.openEnd) {
    if (max === undefined && bounds.max !== undefined) return narrow(way.core, bounds);
    const most = bounds.max === undefined ? undefined : bounds.max - (max ?? 0);
    const least = Math.max(0, bounds.min - min);
    if (most !== undefined && most < least) return undefined;
    return withFree(way, any, [least, most]);
  }
  if (min >= bounds.min && (bounds.max === undefined || (max !== undefined && max <= bounds.max)))
    return way.core;
  return narrow(way.core, bounds);
}

function withFree(way: PatternWay, any: CharSet, [least, most]: Length): Expression {
  const counted = most !== undefined || least > 0;
  if (way.openEnd) {
    const before = way.openStart && !counted ? [repeat(oneOf(any), 0, undefined)] : [];
    return seq(...before, way.core, repeat(oneOf(any), least, most));
  }
  return seq(repeat(oneOf(any), least, most), way.core);
}

function narrow(core: Expression, bounds: LengthBounds): Expression | undefined {
  const parts = core.kind === "seq" ? core.parts : [core];
  const at = parts.findIndex(
    (part) => part.kind === "repeat" && (part.part.kind === "set" || part.part.kind === "text"),
  );
  const found = parts[at];
  if (found?.kind !== "repeat" || lengthOf(found.part)[1] !== 1) return undefined;
  const [others, othersMax] = parts
    .filter((_, i) => i !== at)
    .map(lengthOf)
    .reduce(addLengths, [0, 0]);
  const min = Math.max(found.min, bounds.min - others);
  if (bounds.max !== undefined && othersMax === undefined) return undefined;
  const room = bounds.max === undefined ? undefined : bounds.max - (othersMax ?? 0);
  const max = found.max === undefined ? room : Math.min(found.max, room ?? found.max);
  if (max !== undefined && max < min) return undefined;
  return seq(...parts.map((part, i) => (i === at ? repeat(found.part, min, max) : part)));
}

/** The whole answer matches the pattern: `^` and `$` at its ends are implied. */
export function wholeMatch(pattern: string): Expression {
  return alt(...readPattern(pattern).map((way) => way.core));
}
