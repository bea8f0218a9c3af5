/** Numbers within bounds as digits. What is written stays in 15 significant digits, where a double holds it exactly. */
import { charSet } from "../char-set.js";
import {
  alt,
  EMPTY,
  NEVER,
  oneOf,
  optional,
  repeat,
  seq,
  text,
  type Expression,
  type RuleBook,
} from "../expression.js";
import { Refusal } from "../refusal.js";

export interface NumberBounds {
  integer: boolean;
  min: number | undefined;
  max: number | undefined;
  /** The bound itself is not allowed. */
  minOpen: boolean;
  maxOpen: boolean;
  multipleOf: number | undefined;
}

const DIGITS_MAX = 15;
const INTEGER_MAX = 10n ** BigInt(DIGITS_MAX) - 1n;
/** Multiples between two bounds that are listed one by one. */
const MAX_LISTED = 512;
/** Greatest divisor whose remainders are followed digit by digit, and digits of such numbers. */
const MAX_DIVISOR = 100;
const DIVIDED_DIGITS = 9;

const DIGIT = oneOf(charSet([[0x30, 0x39]]));

function digits(first: number, last: number): Expression {
  return first > last ? NEVER : oneOf(charSet([[0x30 + first, 0x30 + last]]));
}

const WHOLE = alt(text("0"), seq(digits(1, 9), repeat(DIGIT, 0, DIGITS_MAX - 1)));
const ANY_INTEGER = seq(optional(text("-")), WHOLE);
const EXPONENT = seq(
  oneOf(
    charSet([
      [0x45, 0x45],
      [0x65, 0x65],
    ]),
  ),
  optional(
    oneOf(
      charSet([
        [0x2b, 0x2b],
        [0x2d, 0x2d],
      ]),
    ),
  ),
  repeat(DIGIT, 1, 2),
);
const ANY_NUMBER = seq(
  ANY_INTEGER,
  optional(seq(text("."), repeat(DIGIT, 1, DIGITS_MAX))),
  optional(EXPONENT),
);

/** @throws Refusal on a `multipleOf` that digits cannot follow. */
export function numberExpression(bounds: NumberBounds, book: RuleBook): Expression {
  if (bounds.multipleOf !== undefined) return multiples(bounds, bounds.multipleOf, book);
  if (bounds.min === undefined && bounds.max === undefined)
    return bounds.integer ? ANY_INTEGER : ANY_NUMBER;
  return bounds.integer ? integersWithin(bounds) : decimalsWithin(bounds);
}

/** Least and greatest integer within the bounds, no longer than 15 digits. */
function integerRange({ min, max, minOpen, maxOpen }: NumberBounds): [bigint, bigint] {
  let low = -INTEGER_MAX;
  let high = INTEGER_MAX;
  if (min !== undefined) {
    const least = BigInt(Math.ceil(min));
    const from = minOpen && Number.isInteger(min) ? least + 1n : least;
    if (from > low) low = from;
  }
  if (max !== undefined) {
    const most = BigInt(Math.floor(max));
    const to = maxOpen && Number.isInteger(max) ? most - 1n : most;
    if (to < high) high = to;
  }
  return [low, high];
}

function integersWithin(bounds: NumberBounds): Expression {
  const [low, high] = integerRange(bounds);
  if (low > high) return NEVER;
  const ways: Expression[] = [];
  if (low < 0n) ways.push(seq(text("-"), wholesBetween(high < 0n ? -high : 1n, -low)));
  if (high >= 0n) ways.push(wholesBetween(low > 0n ? low : 0n, high));
  return alt(...ways);
}

/** Decimal writings of 0 ≤ low … high, without leading zeros. */
function wholesBetween(low: bigint, high: bigint): Expression {
  const ways: Expression[] = [];
  /** Lengths all of whose numbers are within. */
  const whole: number[] = [];
  for (let length = String(low).length; length <= String(high).length; length++) {
    const least = length === 1 ? 0n : 10n ** BigInt(length - 1);
    const most = 10n ** BigInt(length) - 1n;
    if (length > 1 && low <= least && high >= most) whole.push(length);
    else
      ways.push(sameLength(String(low > least ? low : least), String(high < most ? high : most)));
  }
  const [first, last] = [whole[0], whole.at(-1)];
  if (first !== undefined && last !== undefined)
    ways.push(seq(digits(1, 9), repeat(DIGIT, first - 1, last - 1)));
  return alt(...ways);
}

/** Digit strings from … to of one length. */
function sameLength(from: string, to: string): Expression {
  const rest = from.length - 1;
  const a = Number(from[0]);
  const b = Number(to[0]);
  if (rest === 0) return digits(a, b);
  if (/^0*$/.test(from.slice(1)) && /^9*$/.test(to.slice(1)))
    return seq(digits(a, b), repeat(DIGIT, rest, rest));
  if (a === b) return seq(text(String(a)), sameLength(from.slice(1), to.slice(1)));
  return alt(
    seq(text(String(a)), sameLength(from.slice(1), "9".repeat(rest))),
    ...(a + 1 <= b - 1 ? [seq(digits(a + 1, b - 1), repeat(DIGIT, rest, rest))] : []),
    seq(text(String(b)), sameLength("0".repeat(rest), to.slice(1))),
  );
}

interface Edge {
  whole: bigint;
  /** Digits after the point, without trailing zeros. */
  fraction: string;
  open: boolean;
}

/** A double as exact decimal digits. @throws Refusal on more digits than are followed. */
function edge(value: number, open: boolean): Edge {
  const written = /^(\d+)(?:\.(\d+))?$/.exec(plainDecimal(Math.abs(value)));
  const whole = written?.[1] ?? "0";
  const fraction = (written?.[2] ?? "").replace(/0+$/, "");
  if (whole.length + fraction.length > DIGITS_MAX + 1)
    throw new Refusal(`bound ${value} has more than ${DIGITS_MAX} digits`);
  return { whole: BigInt(whole), fraction, open };
}

/** Shortest decimal that reads back as the double, without an exponent. */
function plainDecimal(value: number): string {
  const [mantissa = "0", exponent] = String(value).split("e");
  if (exponent === undefined) return mantissa;
  const shift = Number(exponent);
  const [whole = "0", fraction = ""] = mantissa.split(".");
  if (shift < 0) return `0.${"0".repeat(-shift - whole.length)}${whole}${fraction}`;
  return (whole + fraction).padEnd(whole.length + shift, "0");
}

function decimalsWithin({ min, max, minOpen, maxOpen }: NumberBounds): Expression {
  const cap = Number(INTEGER_MAX);
  const low = min === undefined || min < -cap ? undefined : min;
  const high = max === undefined || max > cap ? undefined : max;
  if ((low ?? -cap) > (high ?? cap)) return NEVER;
  const bound = (value: number | undefined, open: boolean) =>
    value === undefined ? undefined : edge(value, open);
  const [lowEdge, highEdge] = [bound(low, minOpen), bound(high, maxOpen)];
  const whole = Math.max(...[lowEdge, highEdge].map((each) => String(each?.whole ?? 0).length));
  const room = Math.max(0, DIGITS_MAX - whole);
  const ways: Expression[] = [];
  if (low === undefined || low < 0) {
    const nearest = high !== undefined && high <= 0 ? highEdge : undefined;
    ways.push(seq(text("-"), magnitudes(nearest, lowEdge, room)));
  }
  if (high === undefined || high >= 0) {
    const nearest = low !== undefined && low >= 0 ? lowEdge : undefined;
    ways.push(magnitudes(nearest, highEdge, room));
  }
  return alt(...ways);
}

/** Writings of from … to, both from 0 up; undefined: 0, the greatest. */
function magnitudes(from: Edge | undefined, to: Edge | undefined, room: number): Expression {
  const low = from ?? { whole: 0n, fraction: "", open: false };
  const high = to ?? { whole: INTEGER_MAX, fraction: "9", open: false };
  if (low.whole > high.whole) return NEVER;
  if (low.whole === high.whole)
    return seq(text(String(low.whole)), fractionBetween(low, high, room));
  const ways = [
    seq(text(String(low.whole)), fractionFrom(low, room)),
    seq(text(String(high.whole)), fractionTo(high, room)),
  ];
  if (low.whole + 1n <= high.whole - 1n)
    ways.push(seq(wholesBetween(low.whole + 1n, high.whole - 1n), anyFraction(room)));
  return alt(...ways);
}

function anyFraction(room: number): Expression {
  return room === 0 ? EMPTY : optional(seq(text("."), repeat(DIGIT, 1, room)));
}

/** `.ddd` at or above the edge's fraction, or nothing where that is above. */
function fractionFrom({ fraction, open }: Edge, room: number): Expression {
  const ways: Expression[] = fraction === "" && !open ? [EMPTY] : [];
  const tail = above(fraction, open, room);
  return alt(...ways, ...(tail === NEVER ? [] : [seq(text("."), tail)]));
}

function fractionTo({ fraction, open }: Edge, room: number): Expression {
  const ways: Expression[] = fraction !== "" || !open ? [EMPTY] : [];
  const tail = below(fraction, open, room);
  return alt(...ways, ...(tail === NEVER ? [] : [seq(text("."), tail)]));
}

/** At least one digit, at most `room`: digits whose value is ≥ (open: >) that of `edge`. */
function above(edge: string, open: boolean, room: number): Expression {
  if (room <= 0) return NEVER;
  if (edge === "") {
    if (!open) return repeat(DIGIT, 1, room);
    const ways = [seq(digits(1, 9), repeat(DIGIT, 0, room - 1))];
    if (room > 1) ways.push(seq(text("0"), above("", true, room - 1)));
    return alt(...ways);
  }
  const first = Number(edge[0]);
  const rest = edge.slice(1);
  const ways = first < 9 ? [seq(digits(first + 1, 9), repeat(DIGIT, 0, room - 1))] : [];
  if (rest === "" && !open) ways.push(text(String(first)));
  ways.push(seq(text(String(first)), above(rest, open, room - 1)));
  return alt(...ways);
}

/** At least one digit, at most `room`: digits whose value is ≤ (open: <) that of `edge`. */
function below(edge: string, open: boolean, room: number): Expression {
  if (room <= 0) return NEVER;
  if (edge === "") return open ? NEVER : repeat(text("0"), 1, room);
  const first = Number(edge[0]);
  const rest = edge.slice(1);
  const ways = first > 0 ? [seq(digits(0, first - 1), repeat(DIGIT, 0, room - 1))] : [];
  if (rest !== "" || !open) ways.push(text(String(first)));
  ways.push(seq(text(String(first)), below(rest, open, room - 1)));
  return alt(...ways);
}

/** Between two edges of one whole part. */
function fractionBetween(low: Edge, high: Edge, room: number): Expression {
  const ways: Expression[] = [];
  if (low.fraction === "" && !low.open && (high.fraction !== "" || !high.open)) ways.push(EMPTY);
  const tail = between(low.fraction, high.fraction, { low, high, room });
  return alt(...ways, ...(tail === NEVER ? [] : [seq(text("."), tail)]));
}

function between(a: string, b: string, of: { low: Edge; high: Edge; room: number }): Expression {
  const { low, high, room } = of;
  if (room <= 0) return NEVER;
  const [x, y] = [Number(a[0] ?? "0"), Number(b[0] ?? "0")];
  const [restA, restB] = [a.slice(1), b.slice(1)];
  if (x > y) return NEVER;
  if (a === "" && b === "") return low.open || high.open ? NEVER : repeat(text("0"), 1, room);
  if (x === y) {
    const here = restA === "" && !low.open && (restB !== "" || !high.open);
    const deeper = seq(text(String(x)), between(restA, restB, { low, high, room: room - 1 }));
    return alt(...(here ? [text(String(x))] : []), deeper);
  }
  const ways = [
    ...(restA === "" && !low.open ? [text(String(x))] : []),
    seq(text(String(x)), above(restA, low.open, room - 1)),
    ...(restB !== "" || !high.open ? [text(String(y))] : []),
    seq(text(String(y)), below(restB, high.open, room - 1)),
  ];
  if (x + 1 <= y - 1) ways.push(seq(digits(x + 1, y - 1), repeat(DIGIT, 0, room - 1)));
  return alt(...ways);
}

function multiples(bounds: NumberBounds, step: number, book: RuleBook): Expression {
  const [low, high] = [bounds.min, bounds.max];
  const plain = { ...bounds, multipleOf: undefined };
  if (step === 1) return numberExpression({ ...plain, integer: true }, book);
  const exact = Number.isInteger(step) || Number.isInteger(Math.log2(step));
  if (!exact) throw new Refusal(`multipleOf ${step}: a whole number or 0.5, 0.25, 0.125 … only`);
  if (low !== undefined && high !== undefined && (high - low) / step <= MAX_LISTED)
    return listed(bounds, step);
  const free = (low === undefined || low === 0) && high === undefined && !bounds.minOpen;
  if (!free || !Number.isInteger(step) || step > MAX_DIVISOR)
    throw new Refusal(
      `multipleOf ${step}: with bounds that hold at most ${MAX_LISTED} multiples, ` +
        `or a whole number up to ${MAX_DIVISOR} with no bound but minimum 0`,
    );
  const positive = alt(
    text("0"),
    remainder(book, step, { left: DIVIDED_DIGITS, rest: 0, first: true }),
  );
  return low === 0 ? positive : seq(optional(text("-")), positive);
}

function listed(
  { min = 0, max = 0, minOpen, maxOpen, integer }: NumberBounds,
  step: number,
): Expression {
  const ways: Expression[] = [];
  const most = Math.min(max, Number(INTEGER_MAX));
  const least = Math.max(min, -Number(INTEGER_MAX));
  for (let k = Math.ceil(least / step); k * step <= most; k++) {
    const value = k * step;
    if ((minOpen && value <= min) || (maxOpen && value >= max) || value < min) continue;
    if (!integer || Number.isInteger(value)) ways.push(text(plainValue(value)));
  }
  return ways.length === 0 ? NEVER : alt(...ways);
}

function plainValue(value: number): string {
  if (value === 0) return "0";
  return value < 0 ? `-${plainDecimal(-value)}` : plainDecimal(value);
}

/** Digits that follow when the number so far leaves `rest`; it may end when that is 0. */
function remainder(
  book: RuleBook,
  step: number,
  { left, rest, first }: { left: number; rest: number; first: boolean },
): Expression {
  if (left === 0) return rest === 0 && !first ? EMPTY : NEVER;
  return book.rule(`multiple:${step}:${left}:${rest}:${first}`, () => {
    const ways: Expression[] = rest === 0 && !first ? [EMPTY] : [];
    for (let digit = first ? 1 : 0; digit <= 9; digit++)
      ways.push(
        seq(
          text(String(digit)),
          remainder(book, step, { left: left - 1, rest: (rest * 10 + digit) % step, first: false }),
        ),
      );
    return alt(...ways);
  });
}
