import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { PLAIN } from "./choice-settings.fixture.js";
import { createChoiceText, pendingBytes, type ChoiceSettings } from "./choice-text.js";
import { loadTokenizer } from "./tokenizer.js";
import type { FinishCause, TextPiece } from "./types.js";

const tokenizer = await loadTokenizer(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);
const byteIds = Array.from({ length: 256 }, (_, byte) => {
  for (let id = 0; id < tokenizer.size; id++) {
    const bytes = tokenizer.tokenBytes(id);
    if (bytes.length === 1 && bytes[0] === byte) return id;
  }
  return assert.fail(`no token for byte ${byte}`);
});
const END = tokenizer.specialId("<|im_end|>");

/** Pushes ids until the choice ends, or ends it. */
function write(ids: number[], options: Partial<ChoiceSettings> = {}) {
  const choice = createChoiceText({ ...PLAIN, ...options }, tokenizer);
  const pieces: TextPiece[] = [];
  for (const tokenId of ids) {
    pieces.push(choice.push({ tokenId, logprob: undefined, top: [] }));
    if (pieces.at(-1)?.finish !== undefined) break;
  }
  if (pieces.at(-1)?.finish === undefined) pieces.push(choice.end({ reason: "aborted" }));
  const text = pieces.map((piece) => piece.text).join("");
  const tokens = pieces.flatMap((piece) => piece.tokens.map(({ tokenId }) => tokenId));
  return { pieces, text, tokens, finish: pieces.at(-1)?.finish };
}

const decode = (bytes: Uint8Array) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
const encode = (text: string) => tokenizer.encode(text, { special: false });

/** Text of few letters, so that stop texts occur and overlap, and of characters of 1 to 4 bytes. */
const letters = fc.constantFrom("a", "b", "c", "é", "你", "😀", "\n", " ");
const texts = fc.array(letters, { maxLength: 24 }).map((list) => list.join(""));
const stops = fc.array(
  fc.array(letters, { minLength: 1, maxLength: 4 }).map((list) => list.join("")),
  { maxLength: 4 },
);

/** The same text in other tokens: pieces at random places, each whole or byte by byte. */
const cuts = fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.boolean()), { maxLength: 30 });
function splitTokens(text: string, plan: [number, boolean][]): number[] {
  const ids: number[] = [];
  let at = 0;
  for (const [length, bytewise] of [...plan, [text.length, false] as const]) {
    const end = Math.min(text.length, at + length);
    // A cut inside a surrogate pair is moved behind it.
    const whole = /[\udc00-\udfff]/.test(text[end] ?? "") ? end + 1 : end;
    const piece = text.slice(at, whole);
    const bytes = [...Buffer.from(piece)].map((byte) => byteIds[byte] ?? assert.fail());
    ids.push(...(bytewise ? bytes : encode(piece)));
    at = whole;
  }
  return ids;
}

/** The text up to the stop that is complete first; of those that end together the longest. */
function expected(text: string, stopTexts: string[], include: boolean) {
  for (let end = 1; end <= text.length; end++) {
    const found = stopTexts.filter((stop) => text.slice(0, end).endsWith(stop));
    const [stop] = found.sort((a, b) => b.length - a.length);
    if (stop === undefined) continue;
    return { text: text.slice(0, include ? end : end - stop.length), stop };
  }
  return { text, stop: undefined };
}

test("choice text: any tokens give the text of all their bytes, and every token is reported once", () => {
  const ids = fc.array(fc.integer({ min: 0, max: tokenizer.size - 1 }), { maxLength: 60 });
  fc.assert(
    fc.property(ids, (list) => {
      const { text, tokens } = write(list, { skipSpecialTokens: false });
      assert.equal(text, decode(Buffer.concat(list.map((id) => tokenizer.tokenBytes(id)))));
      assert.deepEqual(tokens, list);
    }),
    { numRuns: 500 },
  );
});

test("choice text: no piece but the last has half a character", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 30 }), (raw) => {
      const text = raw.toWellFormed().replaceAll("\ufffd", "");
      const ids = [...Buffer.from(text)].map((byte) => byteIds[byte] ?? assert.fail());
      const { pieces, text: out } = write(ids);
      assert.equal(out, text);
      for (const piece of pieces) {
        assert.ok(piece.text.isWellFormed(), JSON.stringify(piece.text));
        assert.ok(!piece.text.includes("\ufffd"));
      }
    }),
    { numRuns: 500 },
  );
});

test("choice text: stop texts are found across token borders, however the text is cut into tokens", () => {
  fc.assert(
    fc.property(texts, stops, cuts, fc.boolean(), (text, stopTexts, plan, includeStopText) => {
      const got = write(splitTokens(text, plan), { stopTexts, includeStopText });
      const want = expected(text, stopTexts, includeStopText);
      assert.equal(got.text, want.text);
      const cause: FinishCause =
        want.stop === undefined ? { reason: "aborted" } : { reason: "stop", stopText: want.stop };
      assert.deepEqual(got.finish, cause);
    }),
    { numRuns: 3000 },
  );
});

test("choice text: nothing that may begin a stop text is shown before it is decided", () => {
  fc.assert(
    fc.property(texts, stops, (text, stopTexts) => {
      const ids = [...Buffer.from(text)].map((byte) => byteIds[byte] ?? assert.fail());
      const { pieces } = write(ids, { stopTexts });
      const want = expected(text, stopTexts, false).text;
      let shown = "";
      for (const piece of pieces) {
        shown += piece.text;
        assert.ok(want.startsWith(shown), `${JSON.stringify(shown)} of ${JSON.stringify(want)}`);
      }
    }),
    { numRuns: 1000 },
  );
});

test("choice text: a stop id ends the choice, is reported, and has no text", () => {
  const { text, tokens, finish } = write([...encode("ab"), END, ...encode("c")], {
    stopTokenIds: [END],
    skipSpecialTokens: false,
  });
  assert.equal(text, "ab");
  assert.equal(tokens.at(-1), END);
  assert.deepEqual(finish, { reason: "stop", stopTokenId: END });
});

test("choice text: before min_tokens neither stop ids nor stop texts end the choice", () => {
  const ids = [...encode("b"), END, ...encode("a"), ...encode("b")];
  const options = { stopTokenIds: [END], stopTexts: ["b"], minTokens: 3 };
  const { text, tokens, finish } = write(ids, options);
  assert.equal(text, "ba");
  assert.equal(tokens.length, 4);
  assert.deepEqual(finish, { reason: "stop", stopText: "b" });
});

test("choice text: max_tokens gives out what was held back", () => {
  const ids = encode("x").concat(encode("a"));
  const { text, finish } = write(ids, { stopTexts: ["abc"], maxTokens: 2 });
  assert.equal(text, "xa");
  assert.deepEqual(finish, { reason: "length" });
});

test("choice text: a stop text at max_tokens is a stop", () => {
  const { finish } = write(encode("a"), { stopTexts: ["a"], maxTokens: 1 });
  assert.deepEqual(finish, { reason: "stop", stopText: "a" });
});

test("pendingBytes: only what can still become a character", () => {
  const cases: [string, number][] = [
    ["", 0],
    ["61", 0],
    ["c3", 1],
    ["c3a9", 0],
    ["e4", 1],
    ["e4bd", 2],
    ["e4bda0", 0],
    ["f09f", 2],
    ["f09f98", 3],
    ["f09f9880", 0],
    ["c0", 0],
    ["c1", 0],
    ["f5", 0],
    ["ff", 0],
    ["80", 0],
    ["808080", 0],
    ["e080", 0],
    ["eda0", 0],
    ["f08f", 0],
    ["f490", 0],
    ["f48f", 2],
  ];
  for (const [hex, want] of cases) assert.equal(pendingBytes(Buffer.from(hex, "hex")), want, hex);
});

test("echo: the prompt's text comes first, once, without special tokens and image places", () => {
  const pad = tokenizer.specialId("<|vision_pad|>");
  const promptIds = [END, ...encode("the total"), pad, pad, ...encode(" of é")];
  const imageRows = [{ position: promptIds.indexOf(pad), tile: 0, firstRow: 0, count: 2 }];
  const echoed = { echo: true, promptIds, imageRows };
  const { pieces, text, tokens } = write(encode(" 7"), echoed);
  assert.equal(text, "the total of é 7");
  assert.equal(pieces[0]?.text.startsWith("the total of é"), true);
  assert.deepEqual(tokens, encode(" 7"));
  assert.equal(write([], echoed).text, "the total of é");
  const kept = write(encode(" 7"), { ...echoed, skipSpecialTokens: false });
  assert.equal(kept.text, "<|im_end|>the total of é 7");
});

test("echo: a stop text in the prompt stops nothing", () => {
  const echoed = { echo: true, promptIds: encode("a b c"), stopTexts: ["b"] };
  const { text, finish } = write(encode("xyz"), { ...echoed, maxTokens: encode("xyz").length });
  assert.equal(text, "a b cxyz");
  assert.deepEqual(finish, { reason: "length" });
});
