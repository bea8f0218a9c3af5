import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { continuation, LONGEST_END, PromptLookup, SHORTEST_END } from "./prompt-lookup.js";

/** Every earlier place, looked at one by one. */
function slowFind(tokens: readonly number[]): number | undefined {
  for (let length = LONGEST_END; length >= SHORTEST_END; length--) {
    const end = tokens.slice(-length);
    for (let at = tokens.length - 1; at >= length && tokens.length > length; at--)
      if (end.every((token, i) => tokens[at - length + i] === token)) return at;
  }
  return undefined;
}

test("lookup: the longest end that stood before, the latest of these, however the text grows", () => {
  let found = 0;
  const text = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 100, maxLength: 300 });
  const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 });
  fc.assert(
    fc.property(text, sizes, fc.constantFrom(1, 40_000), (small, steps, scale) => {
      const all = small.map((token) => token * scale);
      const lookup = new PromptLookup();
      let length = 0;
      for (let i = 0; length < all.length; i++) {
        length += steps[i % steps.length] ?? 1;
        const tokens = all.slice(0, length);
        const at = lookup.find(tokens);
        assert.equal(at, slowFind(tokens));
        found += at === undefined ? 0 : 1;
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(found > 1000, `${found} found`);
});

test("lookup: a text without repetition has nothing, and one token alone is no end", () => {
  const lookup = new PromptLookup();
  const tokens = Array.from({ length: 5000 }, (_, i) => i);
  assert.equal(lookup.find(tokens), undefined);
  assert.equal(lookup.find([...tokens, 3]), undefined);
  assert.equal(lookup.find([...tokens, 3, 4]), 5);
  assert.equal(new PromptLookup().find([]), undefined);
});

const any = () => true;

test("continuation: goes on behind the text with itself, so that a period repeats", () => {
  assert.deepEqual(continuation([1, 2, 3, 1, 2], 2, { most: 7, may: any }), [3, 1, 2, 3, 1, 2, 3]);
  assert.deepEqual(continuation([5, 5, 5], 2, { most: 3, may: any }), [5, 5, 5]);
  assert.deepEqual(continuation([1, 2, 3, 4], 1, { most: 2, may: any }), [2, 3]);
  assert.deepEqual(continuation([1, 2], 1, { most: 0, may: any }), []);
});

test("continuation: any period from anywhere, cut at the first refused token", () => {
  const period = fc.array(fc.nat(5), { minLength: 1, maxLength: 9 });
  const settings = fc.tuple(fc.nat(30), fc.nat(40), fc.nat(80));
  fc.assert(
    fc.property(period, settings, (cycle, [from, more, refused]) => {
      const at = (i: number) => cycle[i % cycle.length] ?? 0;
      const tokens = Array.from({ length: from + 1 + more }, (_, i) => at(i));
      // The place where the text stood before is whole periods back.
      const back = Math.ceil((more + 1) / cycle.length) * cycle.length;
      const start = tokens.length - Math.min(back, tokens.length);
      const most = 30;
      const may = (_: number, position: number) => position !== start + refused;
      const drafts = continuation(tokens, start, { most, may });
      assert.equal(drafts.length, Math.min(most, refused));
      assert.ok(drafts.every((token, i) => token === at(start + i) || start === 0));
    }),
  );
});
