import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Expression } from "../expression.js";
import { RuleBook } from "../expression.js";
import { numberExpression, type NumberBounds } from "./numbers.js";

/** Where a text that begins at `at` may end. */
function endsOf(part: Expression, text: string, at: number, book: RuleBook): number[] {
  const then = (from: readonly number[], each: Expression) => [
    ...new Set(from.flatMap((end) => endsOf(each, text, end, book))),
  ];
  switch (part.kind) {
    case "text":
      return text.startsWith(part.text, at) ? [at + part.text.length] : [];
    case "set": {
      const point = text.codePointAt(at) ?? -1;
      return part.set.some(([first, last]) => first <= point && point <= last) ? [at + 1] : [];
    }
    case "seq":
      return part.parts.reduce<number[]>(then, [at]);
    case "alt":
      return part.parts.flatMap((each) => endsOf(each, text, at, book));
    case "repeat": {
      const all: number[] = part.min === 0 ? [at] : [];
      let ends = [at];
      for (let count = 1; count <= (part.max ?? text.length) && ends.length > 0; count++) {
        ends = then(ends, part.part);
        if (count >= part.min) all.push(...ends);
      }
      return all;
    }
    case "rule":
      return endsOf(book.rules[part.id] ?? { kind: "alt", parts: [] }, text, at, book);
  }
}

function matcherOf(bounds: Partial<NumberBounds>): { test(text: string): boolean } {
  const book = new RuleBook(100_000);
  const none = { integer: false, min: undefined, max: undefined, minOpen: false, maxOpen: false };
  const expression = numberExpression({ ...none, multipleOf: undefined, ...bounds }, book);
  return { test: (text) => endsOf(expression, text, 0, book).includes(text.length) };
}

function holds(value: number, bounds: Partial<NumberBounds>): boolean {
  const { min = -Infinity, max = Infinity, minOpen = false, maxOpen = false } = bounds;
  return (minOpen ? value > min : value >= min) && (maxOpen ? value < max : value <= max);
}

const decimal = fc
  .tuple(fc.integer({ min: -3000, max: 3000 }), fc.integer({ min: 0, max: 4 }))
  .map(([digits, places]) => Number((digits / 10 ** places).toFixed(places)));
const bounds = fc.record({
  min: fc.option(decimal, { nil: undefined }),
  max: fc.option(decimal, { nil: undefined }),
  minOpen: fc.boolean(),
  maxOpen: fc.boolean(),
});

test("decimals within bounds: a number matches exactly when it is within", () => {
  fc.assert(
    fc.property(bounds, fc.array(decimal, { minLength: 30, maxLength: 30 }), (of, values) => {
      const pattern = matcherOf(of);
      const edges = [of.min, of.max].filter((edge) => edge !== undefined);
      for (const value of [...values, ...edges])
        assert.equal(
          pattern.test(String(value)),
          holds(value, of),
          `${value} in ${JSON.stringify(of)}`,
        );
    }),
    { numRuns: 400, seed: 11 },
  );
});

test("integers within bounds: a number matches exactly when it is whole and within", () => {
  const whole = fc.integer({ min: -12_000, max: 12_000 });
  const of = fc.record({
    min: fc.option(whole, { nil: undefined }),
    max: fc.option(whole, { nil: undefined }),
    minOpen: fc.boolean(),
    maxOpen: fc.boolean(),
  });
  fc.assert(
    fc.property(of, fc.array(whole, { minLength: 30, maxLength: 30 }), (range, values) => {
      const pattern = matcherOf({ ...range, integer: true });
      for (const value of [...values, range.min ?? 0, range.max ?? 0])
        assert.equal(
          pattern.test(String(value)),
          holds(value, range),
          `${value} in ${JSON.stringify(range)}`,
        );
      assert.equal(pattern.test("1.5"), false);
    }),
    { numRuns: 400, seed: 12 },
  );
});

test("multipleOf: multiples match, others do not", () => {
  for (const step of [2, 7, 12, 60]) {
    const pattern = matcherOf({ integer: true, min: 0, multipleOf: step });
    for (let value = 0; value < 2000; value++)
      assert.equal(pattern.test(String(value)), value % step === 0, `${value} by ${step}`);
  }
  const quarters = matcherOf({ min: -1, max: 1, maxOpen: true, multipleOf: 0.25 });
  const found = [-1.25, -1, -0.75, -0.1, 0, 0.25, 0.3, 0.75, 1].filter((value) =>
    quarters.test(String(value)),
  );
  assert.deepEqual(found, [-1, -0.75, 0, 0.25, 0.75]);
});

test("numbers without bounds: finite, and JSON", () => {
  const pattern = matcherOf({});
  for (const good of ["0", "-0", "12.5", "1e9", "-3.25E-12"])
    assert.equal(pattern.test(good), true, good);
  for (const bad of ["01", "1.", ".5", "+1", "1e999", "NaN"])
    assert.equal(pattern.test(bad), false, bad);
});
