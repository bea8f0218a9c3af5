/**
 * Alternatives that begin alike → one beginning, then what differs. XGrammar 0.1.27 merges states of alternatives by
 * their beginnings and by their ends at once, and then lets mixtures through: `"bad" | "red" | "rex"` takes `bax`. Where
 * no two ways on begin with the same character or rule it merges by ends alone, which is right.
 */
import {
  ASCII,
  BEYOND_ASCII,
  charSet,
  intersect,
  isEmpty,
  sizeOf,
  subtract,
  union,
  type CharSet,
} from "./char-set.js";
import { alt, EMPTY, oneOf, repeat, seq, text, type Expression } from "./expression.js";
import { Refusal } from "./refusal.js";

/** A set that lacks no more than these of all beyond ASCII is written as a class that leaves them out. */
export const MAX_MISSING = 64;
/** Beginnings looked at in one grammar: each splits a way, and ways can double. */
const MAX_HEADS = 200_000;
/** Characters beyond ASCII that are told apart one by one. */
const MAX_POINTS = 2048;

type Head =
  | { kind: "chars"; set: CharSet }
  | { kind: "rule"; id: number }
  /** Repeated from 0 on: a rule of its own in XGrammar, like no other. */
  | { kind: "apart"; part: Expression };

/** One way on; without a head the alternative is at its end. */
interface Way {
  head: Head | undefined;
  rest: Expression;
}

export function isWide(high: CharSet): boolean {
  return sizeOf(subtract(BEYOND_ASCII, high)) <= MAX_MISSING;
}

export class Factoring {
  private headCount = 0;

  /** `bodies`: of the rules, undefined where one is never used. */
  constructor(private readonly bodies: readonly (Expression | undefined)[]) {}

  /** The same texts; no two ways on begin alike. @throws Refusal when that takes too many. */
  apply(part: Expression): Expression {
    switch (part.kind) {
      case "text":
      case "set":
      case "rule":
        return part;
      case "seq":
        return seq(...part.parts.map((each) => this.apply(each)));
      case "repeat":
        return repeat(this.apply(part.part), part.min, part.max);
      case "alt":
        return this.alternatives([part]);
    }
  }

  private alternatives(parts: readonly Expression[]): Expression {
    const flat = parts.flatMap(flatten);
    const [only] = flat;
    if (flat.length === 1 && only !== undefined) return this.apply(only);
    const ways = flat.flatMap((part) => this.waysOf(part));
    if (!collide(ways)) return alt(...flat.map((part) => this.apply(part)));
    const ends = ways.some(({ head }) => head === undefined) ? [EMPTY] : [];
    return alt(...ends, ...this.grouped(ways));
  }

  private grouped(ways: readonly Way[]): Expression[] {
    const byRule = new Map<number, Expression[]>();
    const out: Expression[] = [];
    for (const { head, rest } of ways) {
      if (head?.kind === "apart") out.push(seq(head.part, this.apply(rest)));
      if (head?.kind === "rule") byRule.set(head.id, [...(byRule.get(head.id) ?? []), rest]);
    }
    for (const [id, rests] of byRule) out.push(seq({ kind: "rule", id }, this.alternatives(rests)));
    for (const { set, rests } of groupsOf(ways)) out.push(this.group(set, rests));
    return out;
  }

  /** What all rests begin with as well goes before them. */
  private group(set: CharSet, rests: readonly Expression[]): Expression {
    const single = singleOf(set);
    if (single === undefined) return seq(oneOf(set), this.alternatives(rests));
    const shared = sharedText(rests);
    const behind = rests.map((rest) => withoutLead(rest, shared.length));
    const first = single > 0x7f ? oneOf(set) : text(String.fromCodePoint(single));
    return seq(first, text(shared), this.alternatives(behind));
  }

  private waysOf(part: Expression): Way[] {
    if (++this.headCount > MAX_HEADS)
      throw new Refusal(
        `alternatives that begin alike split more than ${MAX_HEADS} times, the limit`,
      );
    switch (part.kind) {
      case "text":
        return [textWay(part.text)];
      case "set":
        return [{ head: { kind: "chars", set: part.set }, rest: EMPTY }];
      case "alt":
        return part.parts.flatMap((each) => this.waysOf(each));
      case "rule": {
        const body = this.bodies[part.id];
        // XGrammar puts such a rule in place of its name.
        if (body !== undefined && isPlain(body)) return this.waysOf(body);
        return [{ head: { kind: "rule", id: part.id }, rest: EMPTY }];
      }
      case "repeat":
        return this.waysOfRepeat(part);
      case "seq":
        return this.waysOfSeq(part.parts);
    }
  }

  private waysOfSeq(parts: readonly Expression[]): Way[] {
    const [first, ...others] = parts;
    if (first === undefined) return [{ head: undefined, rest: EMPTY }];
    return this.waysOf(first).flatMap(({ head, rest }) =>
      head === undefined ? this.waysOfSeq(others) : [{ head, rest: seq(rest, ...others) }],
    );
  }

  private waysOfRepeat(of: Expression & { kind: "repeat" }): Way[] {
    const { part, min, max } = of;
    const apart: Way[] = [{ head: { kind: "apart", part: this.apply(of) }, rest: EMPTY }];
    if (min === 0) return apart;
    const ways = this.waysOf(part);
    if (ways.some(({ head }) => head === undefined || head.kind === "apart")) return apart;
    const more = max === 1 ? EMPTY : repeat(part, min - 1, max === undefined ? undefined : max - 1);
    return ways.map(({ head, rest }) => ({ head, rest: seq(rest, more) }));
  }
}

function flatten(part: Expression): Expression[] {
  return part.kind === "alt" ? part.parts.flatMap(flatten) : [part];
}

function textWay(value: string): Way {
  const point = value.codePointAt(0);
  if (point === undefined) return { head: undefined, rest: EMPTY };
  const rest = value.slice(point > 0xffff ? 2 : 1);
  return { head: { kind: "chars", set: [[point, point]] }, rest: rest === "" ? EMPTY : text(rest) };
}

/** Alternatives of characters alone, none of them empty. */
function isPlain(body: Expression): boolean {
  const plain = (part: Expression) =>
    part.kind === "set" || (part.kind === "text" && part.text !== "");
  return flatten(body).every((way) =>
    way.kind === "seq" ? way.parts.length > 0 && way.parts.every(plain) : plain(way),
  );
}

/** A class beyond ASCII stands for one character that is like no listed one: XGrammar writes it as ranges of bytes. */
function partsOf(set: CharSet): { low: CharSet; wide: boolean; points: CharSet } {
  const high = intersect(set, BEYOND_ASCII);
  const wide = !isEmpty(high) && isWide(high);
  return { low: intersect(set, ASCII), wide, points: wide ? [] : high };
}

/** The byte that a character beyond ASCII begins with. */
function leadOf(point: number): number {
  return Buffer.from(String.fromCodePoint(point))[0] ?? 0;
}

function pointsIn(set: CharSet): number[] {
  return set.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i),
  );
}

function collide(ways: readonly Way[]): boolean {
  const seen = new Set<number | string>();
  for (const { head } of ways) {
    if (head === undefined || head.kind === "apart") continue;
    for (const label of head.kind === "rule" ? [`rule ${head.id}`] : labelsOf(head.set)) {
      if (seen.has(label)) return true;
      seen.add(label);
    }
  }
  return false;
}

/** Of characters beyond ASCII the first byte: two that share it collide. */
function labelsOf(set: CharSet): (number | string)[] {
  const { low, wide, points } = partsOf(set);
  const leads = isEmpty(points)
    ? []
    : points.flatMap(([first, last]) => {
        const [from, to] = [leadOf(first), leadOf(last)];
        return Array.from({ length: to - from + 1 }, (_, i) => from + i);
      });
  return [...pointsIn(low), ...(wide ? ["wide"] : []), ...new Set(leads)];
}

interface Group {
  set: CharSet;
  rests: Expression[];
}

/** Characters that lead on to the same rests are one group. */
function groupsOf(ways: readonly Way[]): Group[] {
  const byLabel = new Map<number, number[]>();
  const WIDE = -1;
  let high: CharSet = BEYOND_ASCII;
  const put = (label: number, way: number) => {
    byLabel.set(label, [...(byLabel.get(label) ?? []), way]);
    if (byLabel.size > MAX_POINTS)
      throw new Refusal(`alternatives begin with more than ${MAX_POINTS} characters, the limit`);
  };
  ways.forEach(({ head }, i) => {
    if (head?.kind !== "chars") return;
    const { low, wide, points } = partsOf(head.set);
    for (const point of [...pointsIn(low), ...pointsIn(points)]) put(point, i);
    if (wide) put(WIDE, i);
    if (wide) high = intersect(high, head.set);
  });
  const groups = new Map<string, Group>();
  for (const [label, of] of byLabel) {
    // One by one beyond ASCII, each behind a rule of its own.
    const key = `${of.join(",")}${label > 0x7f ? ` ${label}` : ""}`;
    const more: CharSet = label === WIDE ? high : charSet([[label, label]]);
    const known = groups.get(key);
    const rests = of.map((i) => ways[i]?.rest ?? EMPTY);
    groups.set(key, { set: known === undefined ? more : union(known.set, more), rests });
  }
  return [...groups.values()];
}

function singleOf(set: CharSet): number | undefined {
  const [only, second] = set;
  return second === undefined && only !== undefined && only[0] === only[1] ? only[0] : undefined;
}

function leadText(part: Expression): string {
  if (part.kind === "text") return part.text;
  const first = part.kind === "seq" ? part.parts[0] : undefined;
  return first?.kind === "text" ? first.text : "";
}

/** Whole characters. */
function sharedText(rests: readonly Expression[]): string {
  const [first = "", ...others] = rests.map(leadText);
  let shared = Array.from(first);
  for (const other of others) {
    const letters = Array.from(other);
    const at = shared.findIndex((letter, i) => letters[i] !== letter);
    if (at >= 0) shared = shared.slice(0, at);
  }
  return shared.join("");
}

function withoutLead(part: Expression, length: number): Expression {
  if (length === 0) return part;
  if (part.kind === "text")
    return part.text.length === length ? EMPTY : text(part.text.slice(length));
  if (part.kind !== "seq") return part;
  const [first, ...others] = part.parts;
  return first === undefined ? part : seq(withoutLead(first, length), ...others);
}
