import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { nfc } from "./nfc.js";
import { randomText } from "./texts.fixture.js";

/** All marks of Unicode. */
const MARKS = Array.from({ length: 0x110000 }, (_, code) => code)
  .filter((code) => code < 0xd800 || code > 0xdfff)
  .map((code) => String.fromCodePoint(code))
  .filter((character) => /\p{M}/u.test(character));

const runs = fc
  .tuple(
    fc.constantFrom("", "a", "é", "ậ", "가", "\u0915", "\n"),
    fc.array(fc.constantFrom(...MARKS), { minLength: 1, maxLength: 400 }),
    fc.constantFrom("", "b", "\u11a8", "\u0301"),
  )
  .map(([before, marks, after]) => before + marks.join("") + after);

test("nfc: runs of marks of any kind and length are what String.normalize makes of them", () => {
  fc.assert(
    fc.property(fc.array(runs, { maxLength: 4 }), (parts) => {
      const text = parts.join("");
      assert.equal(nfc(text), text.normalize("NFC"));
    }),
    { numRuns: 500 },
  );
});

test("nfc: each mark among others is what String.normalize makes of it", () => {
  const some = "\u0301\u0323\u0334\u0345\u3099\u094d".repeat(40);
  for (const mark of MARKS) {
    const text = `a${some}${mark}${some}`;
    assert.equal(nfc(text), text.normalize("NFC"), mark.codePointAt(0)?.toString(16));
  }
});

test("nfc: texts without long runs are left to String.normalize", () => {
  fc.assert(fc.property(randomText, (text) => assert.equal(nfc(text), text.normalize("NFC"))));
});

test("nfc: a megabyte of marks in the wrong order is sorted, which by insertion takes minutes", () => {
  const count = 2 ** 19;
  const [above, below] = ["\u0301".repeat(count), "\u0323".repeat(count)];
  assert.equal(nfc(`a${above}${below}`), `\u1ea1${below.slice(1)}${above}`);
});
