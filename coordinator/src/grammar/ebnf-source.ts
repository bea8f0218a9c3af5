/**
 * EBNF as llama.cpp and XGrammar write it (`root ::= "a" [b-c]* (rule | "d"){1,3}`, `#` comments) → expressions, so that
 * what this version of XGrammar gets wrong (ranges beyond ASCII), or aborts on, never reaches it.
 */
import { charSet, complement, type CharSet } from "./char-set.js";
import { alt, EMPTY, oneOf, repeat, seq, text, type Expression } from "./expression.js";
import { Refusal } from "./refusal.js";

export interface SourceGrammar {
  root: Expression;
  rules: Expression[];
}

const NAME = /[A-Za-z_][A-Za-z0-9_.-]*/y;
/** Parentheses within parentheses. */
const MAX_DEPTH = 64;
const ESCAPES: Record<string, string> = {
  n: "\n",
  r: "\r",
  t: "\t",
  b: "\b",
  f: "\f",
  v: "\v",
  0: "\0",
  e: "\x1b",
};

/** @throws Refusal with line and column, or when there is no rule `root`. */
export function readEbnf(source: string, ruleCountMax: number): SourceGrammar {
  return new Parser(source, ruleCountMax).parse();
}

class Parser {
  private at = 0;
  private depth = 0;
  private readonly ids = new Map<string, number>();
  private readonly bodies: (Expression | undefined)[] = [];
  private readonly firstUse: number[] = [];

  constructor(
    private readonly source: string,
    private readonly ruleCountMax: number,
  ) {}

  parse(): SourceGrammar {
    this.skip();
    while (this.at < this.source.length) this.definition();
    const rules = this.bodies.map((body, id) => {
      if (body === undefined) {
        this.at = this.firstUse[id] ?? 0;
        throw this.wrong(`rule ${this.nameOf(id)} is not defined`);
      }
      return body;
    });
    const root = this.ids.get("root");
    if (root === undefined) throw new Refusal("there is no rule root");
    return { root: { kind: "rule", id: root }, rules };
  }

  private nameOf(id: number): string {
    return [...this.ids.keys()][id] ?? "";
  }

  private definition(): void {
    const start = this.at;
    const name = this.name();
    if (name === undefined) throw this.wrong("a rule's name is expected");
    const id = this.idOf(name, start);
    this.skip();
    if (!this.take("::=")) throw this.wrong("::= is expected");
    this.skip();
    if (this.bodies[id] !== undefined) throw this.wrong(`rule ${name} is defined twice`);
    this.bodies[id] = this.choice();
    if (this.source.startsWith("(=", this.at)) this.lookahead();
  }

  private idOf(name: string, at: number): number {
    const known = this.ids.get(name);
    if (known !== undefined) return known;
    const id = this.ids.size;
    if (id >= this.ruleCountMax)
      throw this.wrong(`more than ${this.ruleCountMax} rules, the limit`);
    this.ids.set(name, id);
    this.bodies[id] = undefined;
    this.firstUse[id] = at;
    return id;
  }

  private choice(): Expression {
    const ways = [this.sequence()];
    while (this.take("|")) {
      this.skip();
      ways.push(this.sequence());
    }
    return alt(...ways);
  }

  private sequence(): Expression {
    const parts: Expression[] = [];
    for (;;) {
      const atom = this.atom();
      if (atom === undefined) return parts.length === 0 ? EMPTY : seq(...parts);
      parts.push(this.counted(atom));
    }
  }

  private atom(): Expression | undefined {
    const letter = this.source[this.at];
    if (letter === '"') return this.literal();
    if (letter === "[") return this.characterClass();
    if (letter === "(" && this.source[this.at + 1] !== "=") return this.group();
    const start = this.at;
    const name = this.name();
    if (name === undefined) {
      if (letter === undefined || letter === "|" || letter === ")" || letter === "(")
        return undefined;
      throw this.wrong(`${JSON.stringify(letter)} is not expected`);
    }
    this.skip();
    if (this.source.startsWith("::=", this.at)) {
      this.at = start;
      return undefined;
    }
    if (this.source[this.at] === "(" && /^(TagDispatch|Token|ExcludeToken)/.test(name))
      throw this.wrong(`${name}(…) is not supported; use a structural tag`);
    return { kind: "rule", id: this.idOf(name, start) };
  }

  private group(): Expression {
    if (++this.depth > MAX_DEPTH) throw this.wrong(`groups nested more than ${MAX_DEPTH} deep`);
    this.at++;
    this.skip();
    const inner = this.choice();
    if (!this.take(")")) throw this.wrong(") is expected");
    this.depth--;
    return inner;
  }

  /** A hint to XGrammar at a rule's end, which changes nothing of what matches. */
  private lookahead(): void {
    this.at += 2;
    this.skip();
    this.choice();
    if (!this.take(")")) throw this.wrong(") is expected");
    this.skip();
  }

  private counted(atom: Expression): Expression {
    this.skip();
    let part = atom;
    for (;;) {
      if (this.take("*")) part = repeat(part, 0, undefined);
      else if (this.take("+")) part = repeat(part, 1, undefined);
      else if (this.take("?")) part = repeat(part, 0, 1);
      else if (this.source[this.at] === "{") part = this.counts(part);
      else return part;
      this.skip();
    }
  }

  private counts(part: Expression): Expression {
    const match = /\{\s*(\d{1,6})?\s*(,?)\s*(\d{1,6})?\s*\}/y;
    match.lastIndex = this.at;
    const found = match.exec(this.source);
    const [all = "", low, comma, high] = found ?? [];
    if (found === null || (low === undefined && high === undefined))
      throw this.wrong("{n}, {n,} or {n,m} is expected");
    const min = Number(low ?? 0);
    const max = comma === "" ? min : high === undefined ? undefined : Number(high);
    if (max !== undefined && max < min) throw this.wrong(`${all}: the range is empty`);
    this.at += all.length;
    return repeat(part, min, max);
  }

  private literal(): Expression {
    this.at++;
    let value = "";
    while (this.source[this.at] !== '"') {
      if (this.at >= this.source.length || this.source[this.at] === "\n")
        throw this.wrong('" is expected');
      value += String.fromCodePoint(this.letter());
    }
    this.at++;
    this.skip();
    return text(value);
  }

  private characterClass(): Expression {
    this.at++;
    const negated = this.take("^");
    const parts: [number, number][] = [];
    while (this.source[this.at] !== "]") {
      if (this.at >= this.source.length) throw this.wrong("] is expected");
      const first = this.letter();
      const ranged = this.source[this.at] === "-" && this.source[this.at + 1] !== "]";
      if (ranged) this.at++;
      const last = ranged ? this.letter() : first;
      if (last < first) throw this.wrong("the range of the class is empty");
      parts.push([first, last]);
    }
    this.at++;
    this.skip();
    const set: CharSet = charSet(parts);
    return oneOf(negated ? complement(set) : set);
  }

  /** One character of a literal or class, escaped or not. */
  private letter(): number {
    if (this.at >= this.source.length) throw this.wrong("a character is expected");
    const point = this.source.codePointAt(this.at) ?? 0;
    if (point !== 0x5c) {
      this.at += point > 0xffff ? 2 : 1;
      return point;
    }
    const hex = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/y;
    hex.lastIndex = this.at;
    const found = hex.exec(this.source);
    if (found !== null) {
      const value = Number.parseInt(found[1] ?? found[2] ?? found[3] ?? "", 16);
      if (value > 0x10ffff) throw this.wrong(`${found[0]} is beyond Unicode`);
      this.at += found[0].length;
      return value;
    }
    const name = this.source[this.at + 1] ?? "";
    if (/[A-Za-z0-9]/.test(name) && ESCAPES[name] === undefined)
      throw this.wrong(`\\${name} is no escape`);
    this.at += 2;
    return (ESCAPES[name] ?? name).codePointAt(0) ?? 0;
  }

  private name(): string | undefined {
    NAME.lastIndex = this.at;
    const found = NAME.exec(this.source)?.[0];
    this.at += found?.length ?? 0;
    return found;
  }

  private take(mark: string): boolean {
    if (!this.source.startsWith(mark, this.at)) return false;
    this.at += mark.length;
    if (mark === ")" || mark === "|") this.skip();
    return true;
  }

  private skip(): void {
    const space = /(?:[ \t\r\n]+|#[^\n]*)*/y;
    space.lastIndex = this.at;
    this.at += space.exec(this.source)?.[0].length ?? 0;
  }

  private wrong(message: string): Refusal {
    const before = this.source.slice(0, this.at).split("\n");
    return new Refusal(
      `line ${before.length}, column ${(before.at(-1) ?? "").length + 1}: ${message}`,
    );
  }
}
