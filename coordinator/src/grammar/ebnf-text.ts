/**
 * Expressions → the EBNF that XGrammar 0.1.27 reads, kept to what it gets right. Its character classes know ASCII
 * alone: `[à-ÿ]` matches nothing, `[^à]` matches à, and a class with a range past U+07FF matches anything. So a class is
 * written over ASCII, a negated one takes in all that lies beyond, and few characters beyond are written as
 * texts, each a rule of its own (`factor.ts` has the reason).
 */
import {
  ASCII,
  BEYOND_ASCII,
  intersect,
  isEmpty,
  pointOf,
  sizeOf,
  subtract,
  type CharSet,
} from "./char-set.js";
import { EMPTY, type Expression } from "./expression.js";
import { Factoring, isWide, MAX_MISSING } from "./factor.js";
import { Refusal } from "./refusal.js";

/** Characters beyond ASCII that are written as texts, each a path of its own through the grammar. */
const MAX_LISTED = 512;
/** States that counted repetitions unroll to. */
const MAX_UNROLLED = 20_000;

export interface GrammarText {
  ebnf: string;
  /** Characters beyond ASCII that must not come anywhere in the answer, which EBNF cannot say. */
  forbidden: number[];
  /** Characters beyond ASCII that stand in texts: none of them may be forbidden. */
  needed: number[];
}

/** @throws Refusal when no text can match, or XGrammar cannot say it. */
export function writeGrammar(root: Expression, rules: readonly Expression[]): GrammarText {
  const productive = findProductive(rules);
  const trimmed = trim(root, productive);
  if (trimmed === undefined) throw new Refusal("can never be satisfied: no text matches it");
  const whole = rules.map((rule) => trim(rule, productive));
  const ids = [...reachable(trimmed, whole)];
  const factoring = new Factoring(whole);
  const start = factoring.apply(trimmed);
  const bodies = new Map(ids.map((id) => [id, factoring.apply(whole[id] ?? EMPTY)]));
  const write = (writer: Writer) => [
    `root ::= ${writer.write(start)}`,
    ...ids.map((id) => `r${id} ::= ${writer.write(bodies.get(id) ?? EMPTY)}`),
    ...writer.pointRules(),
  ];
  // What one class leaves out, the others must not list: known after a first writing.
  const first = new Writer(new Set());
  let lines = write(first);
  const forbidden = [...first.forbidden];
  if (forbidden.length > 0) lines = write(new Writer(first.forbidden));
  const needed = [...first.needed];
  refuseNeeded(forbidden, needed);
  return { ebnf: `${lines.join("\n")}\n`, forbidden, needed };
}

/** @throws Refusal when a character that is kept out of the whole answer stands in a text. */
export function refuseNeeded(forbidden: readonly number[], needed: readonly number[]): void {
  const both = needed.find((point) => forbidden.includes(point));
  if (both === undefined) return;
  throw new Refusal(
    `U+${both.toString(16).padStart(4, "0")} is left out of a class and needed in a text; ` +
      "such a mix beyond ASCII is not supported",
  );
}

/** Rules from which some text can be derived. */
function findProductive(rules: readonly Expression[]): boolean[] {
  const productive = rules.map(() => false);
  for (let changed = true; changed;) {
    changed = false;
    rules.forEach((rule, id) => {
      if (productive[id] === true || !canEnd(rule, productive)) return;
      productive[id] = true;
      changed = true;
    });
  }
  return productive;
}

function canEnd(part: Expression, productive: readonly boolean[]): boolean {
  switch (part.kind) {
    case "text":
    case "set":
      return true;
    case "seq":
      return part.parts.every((each) => canEnd(each, productive));
    case "alt":
      return part.parts.some((each) => canEnd(each, productive));
    case "repeat":
      return part.min === 0 || canEnd(part.part, productive);
    case "rule":
      return productive[part.id] === true;
  }
}

/** Without ways that lead nowhere: a matcher that took one would have no next token. */
function trim(part: Expression, productive: readonly boolean[]): Expression | undefined {
  switch (part.kind) {
    case "text":
    case "set":
      return part;
    case "seq": {
      const parts = part.parts.map((each) => trim(each, productive));
      return parts.every((each) => each !== undefined) ? { kind: "seq", parts } : undefined;
    }
    case "alt": {
      const parts = part.parts
        .map((each) => trim(each, productive))
        .filter((each) => each !== undefined);
      return parts.length === 0 ? undefined : { kind: "alt", parts };
    }
    case "repeat": {
      const inner = trim(part.part, productive);
      if (inner === undefined) return part.min === 0 ? EMPTY : undefined;
      return { ...part, part: inner };
    }
    case "rule":
      return productive[part.id] === true ? part : undefined;
  }
}

function reachable(root: Expression, bodies: readonly (Expression | undefined)[]): Set<number> {
  const seen = new Set<number>();
  const stack: Expression[] = [root];
  for (let part = stack.pop(); part !== undefined; part = stack.pop()) {
    if (part.kind === "seq" || part.kind === "alt") stack.push(...part.parts);
    if (part.kind === "repeat") stack.push(part.part);
    if (part.kind !== "rule" || seen.has(part.id)) continue;
    seen.add(part.id);
    const body = bodies[part.id];
    if (body !== undefined) stack.push(body);
  }
  return seen;
}

class Writer {
  readonly forbidden = new Set<number>();
  readonly needed = new Set<number>();
  private readonly listed = new Set<number>();
  private unrolled = 0;

  /** `unlisted`: forbidden by another class. */
  constructor(private readonly unlisted: ReadonlySet<number>) {}

  write(part: Expression, times = 1): string {
    switch (part.kind) {
      case "text":
        for (const letter of part.text) if (letter > "\x7f") this.needed.add(pointOf(letter));
        return quote(part.text);
      case "set":
        return this.set(part.set);
      case "seq":
        return part.parts.length === 0
          ? '""'
          : part.parts.map((p) => this.group(p, times)).join(" ");
      case "alt":
        return part.parts.map((each) => this.write(each, times)).join(" | ");
      case "repeat":
        return this.repeat(part, times);
      case "rule":
        return `r${part.id}`;
    }
  }

  private group(part: Expression, times: number): string {
    const written = this.write(part, times);
    return part.kind === "alt" || (part.kind === "set" && written.includes(" | "))
      ? `(${written})`
      : written;
  }

  private repeat(part: Expression & { kind: "repeat" }, times: number): string {
    const { min, max } = part;
    if (max === 0) return '""';
    const count = max ?? min;
    this.unrolled += count * times;
    if (this.unrolled > MAX_UNROLLED)
      throw new Refusal(
        `counted repetitions unroll to more than ${MAX_UNROLLED} states, the limit`,
      );
    const inner = `(${this.write(part.part, Math.max(1, count) * times)})`;
    if (max === undefined)
      return min === 0 ? `${inner}*` : min === 1 ? `${inner}+` : `${inner}{${min},}`;
    if (min === 0 && max === 1) return `${inner}?`;
    return min === max ? `${inner}{${min}}` : `${inner}{${min},${max}}`;
  }

  private set(set: CharSet): string {
    const low = intersect(set, ASCII);
    const high = intersect(set, BEYOND_ASCII);
    if (isEmpty(high)) return positive(low);
    if (isWide(high)) {
      const missing = subtract(BEYOND_ASCII, set);
      for (const [first, last] of missing)
        for (let point = first; point <= last; point++) this.forbidden.add(point);
      const out = subtract(ASCII, low);
      // XGrammar 0.1.27 has no class of everything: one that leaves out NUL, which no answer needs.
      return `[^${isEmpty(out) ? "\\u0000" : ranges(out)}]`;
    }
    const count = sizeOf(high);
    if (count > MAX_LISTED)
      throw new Refusal(
        `a class holds ${count} characters beyond ASCII; at most ${MAX_LISTED}, or all but ${MAX_MISSING}`,
      );
    const points = high
      .flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i))
      .filter((point) => !this.unlisted.has(point));
    if (points.length === 0 && isEmpty(low))
      throw new Refusal("a class and one that leaves out all its characters are not supported");
    for (const point of points) this.listed.add(point);
    const names = points.map(pointName);
    return [...(isEmpty(low) ? [] : [positive(low)]), ...names].join(" | ");
  }

  /** The empty rule at the end keeps XGrammar from putting the character in place of the rule's name. */
  pointRules(): string[] {
    const rules = [...this.listed].map(
      (point) => `${pointName(point)} ::= ${quote(String.fromCodePoint(point))} none`,
    );
    return rules.length === 0 ? [] : [...rules, 'none ::= ""'];
  }
}

function pointName(point: number): string {
  return `u${point.toString(16)}`;
}

function positive(set: CharSet): string {
  return `[${ranges(set)}]`;
}

function ranges(set: CharSet): string {
  return set
    .map(([first, last]) => (first === last ? escape(first) : `${escape(first)}-${escape(last)}`))
    .join("");
}

/** Fixed-width escapes: `\x` of this version takes as many hex digits as follow. */
function escape(point: number): string {
  return point < 0x10000
    ? `\\u${point.toString(16).padStart(4, "0")}`
    : `\\U${point.toString(16).padStart(8, "0")}`;
}

/** An EBNF string literal. @throws Refusal on NUL, at which this version's literals end, and on what is no text. */
export function quote(value: string): string {
  if (!value.isWellFormed()) throw new Refusal("half of a surrogate pair is not supported");
  if (value.includes("\0")) throw new Refusal("U+0000 is not supported");
  const letters = Array.from(value, (letter) =>
    /[A-Za-z0-9 _.,:;{}[\]()<>/+*=!?@#$%&|~^'-]/.test(letter) ? letter : escape(pointOf(letter)),
  );
  return `"${letters.join("")}"`;
}
