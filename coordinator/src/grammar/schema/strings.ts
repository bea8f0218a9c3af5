/**
 * JSON strings of a shape. A string of any characters is a chain of rules, each a character and then the rest with its
 * closing quote: XGrammar judges tokens while it compiles as long as no rule returns, so masks cost microseconds where
 * `char*` in a rule of its own costs 60 ms (vocabulary of 151,936). A state of the chain costs some 25 ms to compile
 * there, hence one chain for all `maxLength` of a schema, and beyond `CHAIN` characters whole runs of `RUN`.
 */
import { charsOf, isEmpty, subtract } from "../char-set.js";
import { alt, EMPTY, oneOf, seq, text, type Expression, type RuleBook } from "../expression.js";
import { fitLength, readPattern } from "../pattern.js";
import { Refusal } from "../refusal.js";
import { FORMATS, REFUSED_FORMATS } from "./formats.js";
import { encodeInString, ESCAPE, PLAIN } from "./json-string.js";
import type { Json } from "./document.js";
import type { Shape } from "./shape.js";

/** Longest string with a state for each character. */
const CHAIN = 48;
/** Characters that are counted together in longer ones. */
const RUN = 32;
/** `minLength` up to which the chain's head is written out. */
const HEAD = 4;
/** Longest bound that is counted. A longer `maxLength` is taken as this. */
const LENGTH_MAX = 16_384;

export function stringRule(shape: Shape, book: RuleBook): Expression {
  const pattern = patternOf(shape);
  if (pattern !== undefined) return seq(text('"'), patterned(shape, pattern), text('"'));
  const max = shape.maxLength === undefined ? undefined : Math.min(shape.maxLength, LENGTH_MAX);
  if (shape.minLength > LENGTH_MAX)
    throw new Refusal(`more than ${LENGTH_MAX}, the limit`, "/minLength");
  if (max !== undefined && max < shape.minLength) return alt();
  return seq(text('"'), free(book, shape.minLength, max));
}

/** Whether a listed value is of the formats beside it, in what is enforced of them. */
export function hasFormats({ formats }: Shape, value: Json): boolean {
  if (typeof value !== "string") return true;
  return formats.every((name) => {
    if (REFUSED_FORMATS.has(name)) throw new Refusal(`${name} is not supported`, "/format");
    return (
      !Object.hasOwn(FORMATS, name) || new RegExp(`^(?:${FORMATS[name] ?? ""})$`, "u").test(value)
    );
  });
}

/** The pattern, or the format as one; undefined when any text will do. */
function patternOf(shape: Shape): { source: string; keyword: string } | undefined {
  const formats = shape.formats.filter(
    (name) => Object.hasOwn(FORMATS, name) || REFUSED_FORMATS.has(name),
  );
  const refused = formats.find((name) => REFUSED_FORMATS.has(name));
  if (refused !== undefined) throw new Refusal(`${refused} is not supported`, "/format");
  const sources = [
    ...shape.patterns.map((source) => ({ source, keyword: "/pattern" })),
    ...formats.map((name) => ({ source: `^(?:${FORMATS[name] ?? ""})$`, keyword: "/format" })),
  ];
  const [only, second] = sources;
  if (second !== undefined)
    throw new Refusal("more than one pattern or format on a value", second.keyword);
  return only;
}

function patterned(
  shape: Shape,
  { source, keyword }: { source: string; keyword: string },
): Expression {
  const bounds = { min: shape.minLength, max: shape.maxLength };
  let ways: Expression[];
  try {
    ways = readPattern(source)
      .map((way) => fitLength(way, PLAIN, bounds))
      .filter((way) => way !== undefined);
  } catch (error) {
    if (error instanceof Refusal) throw new Refusal(error.message, keyword);
    throw error;
  }
  if (ways.length === 0)
    throw new Refusal("not supported together with minLength and maxLength", keyword);
  return alt(...ways.map(encodeInString));
}

/** min … max characters, then the closing quote. */
function free(book: RuleBook, min: number, max: number | undefined): Expression {
  if (min === 0) return max === undefined ? endless(book) : upTo(book, max);
  return book.rule(`string:${min}:${max ?? ""}`, () => {
    if (min <= HEAD) return step(free(book, min - 1, max === undefined ? undefined : max - 1));
    return seq(exactly(book, min), free(book, 0, max === undefined ? undefined : max - min));
  });
}

function step(rest: Expression): Expression {
  return alt(seq(oneOf(PLAIN), rest), seq(ESCAPE, rest));
}

function endless(book: RuleBook): Expression {
  const key = "string:*";
  return book.rule(key, () => alt(text('"'), step(book.rule(key, () => EMPTY))));
}

function upTo(book: RuleBook, max: number): Expression {
  if (max === 0) return text('"');
  if (max <= CHAIN)
    return book.rule(`string<=${max}`, () => alt(text('"'), step(upTo(book, max - 1))));
  return book.rule(`string<=${max}`, () =>
    alt(upTo(book, RUN - 1), seq(exactly(book, RUN), upTo(book, max - RUN))),
  );
}

/** So many characters, without a quote after them. */
function exactly(book: RuleBook, count: number): Expression {
  if (count > RUN) return seq(exactly(book, RUN), exactly(book, count - RUN));
  return book.rule(`characters:${count}`, () =>
    count === 1 ? alt(oneOf(PLAIN), ESCAPE) : step(exactly(book, count - 1)),
  );
}

/** Written without escapes, as a free key is. */
function isPlain(name: string): boolean {
  return name.isWellFormed() && isEmpty(subtract(charsOf(name), PLAIN));
}

/** A key that is none of `names`: free text without escapes, along a tree of the names. */
export function keyBeside(book: RuleBook, names: readonly string[]): Expression {
  const near = names.filter(isPlain).map((name) => Array.from(name));
  return seq(text('"'), besides(book, near));
}

function besides(book: RuleBook, rests: readonly string[][]): Expression {
  if (rests.length === 0) return plainTail(book);
  return book.rule(`key:${JSON.stringify(rests)}`, () => {
    const firsts = [...new Set(rests.flatMap(([first]) => (first === undefined ? [] : [first])))];
    const others = subtract(PLAIN, charsOf(firsts.join("")));
    const deeper = firsts.map((letter) =>
      seq(
        text(letter),
        besides(
          book,
          rests.filter(([first]) => first === letter).map((rest) => rest.slice(1)),
        ),
      ),
    );
    const ends = rests.some((rest) => rest.length === 0) ? [] : [text('"')];
    return alt(...ends, seq(oneOf(others), plainTail(book)), ...deeper);
  });
}

function plainTail(book: RuleBook): Expression {
  return book.rule("key", () =>
    alt(
      text('"'),
      seq(
        oneOf(PLAIN),
        book.rule("key", () => EMPTY),
      ),
    ),
  );
}
