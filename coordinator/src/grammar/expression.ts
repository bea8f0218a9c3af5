/** Grammars before they are text: expressions over characters, and rules that may refer to each other. */
import { isEmpty, type CharSet } from "./char-set.js";
import { Refusal } from "./refusal.js";

export type Expression =
  | { kind: "text"; text: string }
  /** One character. */
  | { kind: "set"; set: CharSet }
  | { kind: "seq"; parts: Expression[] }
  | { kind: "alt"; parts: Expression[] }
  | { kind: "repeat"; part: Expression; min: number; max: number | undefined }
  | { kind: "rule"; id: number };

/** Matches nothing, not even the empty text. */
export const NEVER: Expression = { kind: "alt", parts: [] };
export const EMPTY: Expression = { kind: "text", text: "" };

export function text(value: string): Expression {
  return { kind: "text", text: value };
}

export function oneOf(set: CharSet): Expression {
  return isEmpty(set) ? NEVER : { kind: "set", set };
}

export function seq(...parts: Expression[]): Expression {
  const flat = parts.flatMap((part) => (part.kind === "seq" ? part.parts : [part]));
  const joined: Expression[] = [];
  for (const part of flat) {
    const last = joined.at(-1);
    if (part.kind === "text" && last?.kind === "text")
      joined[joined.length - 1] = text(last.text + part.text);
    else if (part !== EMPTY) joined.push(part);
  }
  const [only] = joined;
  return joined.length === 1 && only !== undefined ? only : { kind: "seq", parts: joined };
}

export function alt(...parts: Expression[]): Expression {
  const [only] = parts;
  return parts.length === 1 && only !== undefined ? only : { kind: "alt", parts };
}

export function optional(part: Expression): Expression {
  return { kind: "repeat", part, min: 0, max: 1 };
}

export function repeat(part: Expression, min: number, max: number | undefined): Expression {
  return { kind: "repeat", part, min, max };
}

/** The rules of one grammar. Equal keys are one rule, which is how a recursive schema ends. */
export class RuleBook {
  private readonly bodies: Expression[] = [];
  private readonly byKey = new Map<string, number>();
  private readonly ids = new Map<string, number>();

  constructor(private readonly ruleCountMax: number) {}

  rule(key: string, make: () => Expression): Expression {
    const known = this.byKey.get(key);
    if (known !== undefined) return { kind: "rule", id: known };
    const id = this.bodies.length;
    if (id >= this.ruleCountMax)
      throw new Refusal(`needs more than ${this.ruleCountMax} grammar rules, the limit`);
    this.byKey.set(key, id);
    this.bodies.push(NEVER);
    this.bodies[id] = make();
    return { kind: "rule", id };
  }

  /** A short name for a long key. */
  idOf(key: string): number {
    const known = this.ids.get(key);
    if (known !== undefined) return known;
    this.ids.set(key, this.ids.size);
    return this.ids.size - 1;
  }

  /** Body of each rule by its id. */
  get rules(): readonly Expression[] {
    return this.bodies;
  }
}
