/** Our ids are the public library's, whatever the text is. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { libraryOf, QWEN2_PATTERN } from "./library.fixture.js";
import { pieceEnd } from "./split.js";
import { hostileTexts, letters, randomText } from "./texts.fixture.js";
import { loadTokenizer } from "./tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const dirs = { tiny: "models/nvlm-d-tiny", public: "test/fixtures/qwen2-tokenizer" };
/** A piece that the library takes in a blink. */
const LENGTH = 4000;

for (const [name, path] of Object.entries(dirs)) {
  const { bpe } = await loadTokenizer(root(path));
  const library = await libraryOf(root(path));
  test(`bpe: random texts have the library's ids, ${name} tokenizer`, () => {
    fc.assert(
      fc.property(randomText, (text) => assert.deepEqual([...bpe.encode(text)], library(text))),
      { numRuns: 400 },
    );
  });
  for (const [kind, text] of hostileTexts(LENGTH))
    test(`bpe: a run of ${kind} has the library's ids, ${name} tokenizer`, () => {
      assert.deepEqual([...bpe.encode(text)], library(text));
    });
  test(`bpe: ids before a mark are those that end there, ${name} tokenizer`, () => {
    const text = `${letters(30)} é漢 the total <Image>`;
    const { ids } = bpe.encodeMarked({ text });
    for (let mark = 0; mark <= text.length; mark++) {
      const limit = Buffer.byteLength(text.slice(0, mark));
      let end = 0;
      const wanted = [...ids].filter((id) => (end += bpe.tables.byteCount[id] ?? 0) <= limit);
      assert.equal(bpe.encodeMarked({ text, mark }).before, wanted.length);
    }
  });
}

function pieces(text: string): string[] {
  const found: string[] = [];
  for (let start = 0, end = 0; start < text.length; start = end) {
    end = pieceEnd(text, start);
    found.push(text.slice(start, end));
  }
  return found;
}

test("pieceEnd: a text is cut as by the split pattern", () => {
  const pattern = new RegExp(QWEN2_PATTERN, "gu");
  fc.assert(
    fc.property(randomText, (text) => assert.deepEqual(pieces(text), text.match(pattern) ?? [])),
    { numRuns: 1000 },
  );
});

test("pieceEnd: runs of millions of characters are one piece", () => {
  const count = 8 * 2 ** 20;
  for (const character of ["𝒜", "😀", "a", "!", " "]) {
    const text = character.repeat(count);
    assert.equal(pieceEnd(text, 0), text.length, character);
  }
});
