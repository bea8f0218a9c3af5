import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { makePictures, type Picture } from "./pictures.js";
import { fitOf, ONE_A_WORD, wordCountFor } from "./words.js";
import { promptsOf, type Prompt, type WorkloadParts, type WorkloadSettings } from "./workload.js";

const SETTINGS: WorkloadSettings = {
  seed: 1,
  inputLength: { mean: 64, spread: 16 },
  outputLength: { mean: 20, spread: 5 },
  imageShare: 0.25,
  prefixShare: 0.5,
  prefixTokens: 32,
  prefixCount: 3,
};
const PICTURES: Picture[] = [1, 2, 3].map((width) => ({
  width,
  height: 1,
  data: new Uint8Array(width),
  url: `data:${width}`,
}));
const PARTS: WorkloadParts = { fit: ONE_A_WORD, pictures: PICTURES, dataset: undefined };

function take(count: number, change: Partial<WorkloadSettings> = {}, part = "load"): Prompt[] {
  const prompts: Prompt[] = [];
  for (const prompt of promptsOf({ ...SETTINGS, ...change }, PARTS, part)) {
    if (prompts.length === count) break;
    prompts.push(prompt);
  }
  return prompts;
}

const wordsOf = (text: string) => text.split(" ");

test("promptsOf: the same seed and part give the same prompts, another of either others", () => {
  const texts = (prompts: Prompt[]) => prompts.map(({ text }) => text);
  assert.deepEqual(take(20), take(20));
  assert.notDeepEqual(texts(take(20)), texts(take(20, { seed: 2 })));
  assert.notDeepEqual(texts(take(20)), texts(take(20, {}, "warm-up")));
});

test("promptsOf: lengths are within their spread and reach both of its ends", () => {
  const prompts = take(3000);
  const own = prompts.map(
    ({ text, prefix }) => wordsOf(text).length - (prefix === undefined ? 0 : 32),
  );
  const outputs = prompts.map(({ outputTokens }) => outputTokens);
  assert.deepEqual([Math.min(...own), Math.max(...own)], [48, 80]);
  assert.deepEqual([Math.min(...outputs), Math.max(...outputs)], [15, 25]);
});

test("promptsOf: shares of pictures and prefixes are as asked, each picture and prefix is used", () => {
  const prompts = take(4000);
  const shown = prompts.filter(({ pictures }) => pictures.length > 0);
  const shared = prompts.filter(({ prefix }) => prefix !== undefined);
  // Binomial: √(4000 × ¼ × ¾) = 27, √(4000 × ½ × ½) = 32; five of each.
  assert.ok(Math.abs(shown.length - 1000) < 137, `${shown.length}`);
  assert.ok(Math.abs(shared.length - 2000) < 158, `${shared.length}`);
  assert.equal(new Set(shown.map(({ pictures }) => pictures[0])).size, 3);
  assert.deepEqual([...new Set(shared.map(({ prefix }) => prefix))].sort(), [0, 1, 2]);
});

test("promptsOf: prompts of one prefix begin alike and go on differently, in every part of a run", () => {
  const all = [...take(60), ...take(60, {}, "load-1")].filter(({ prefix }) => prefix === 1);
  const begins = all.map(({ text }) => wordsOf(text).slice(0, 32).join(" "));
  assert.ok(all.length > 5, `${all.length}`);
  assert.equal(new Set(begins).size, 1);
  assert.equal(new Set(all.map(({ text }) => text)).size, all.length);
});

test("promptsOf: a data set is sent in its order, again and again", () => {
  const line = (prompt: string, outputTokens?: number) => ({ prompt, outputTokens, pictures: [] });
  const dataset = [line("one", 7), line("two")];
  const prompts = promptsOf(SETTINGS, { ...PARTS, dataset }, "load");
  const seen = [1, 2, 3].map(() => prompts.next().value as Prompt);
  assert.deepEqual(
    seen.map(({ text, index }) => [text, index]),
    [
      ["one", 0],
      ["two", 1],
      ["one", 2],
    ],
  );
  assert.deepEqual([seen[0]?.outputTokens, seen[2]?.outputTokens], [7, 7]);
  assert.ok((seen[1]?.outputTokens ?? 0) >= 15);
});

test("fitOf: words and the template's tokens from two counts", () => {
  const fit = fitOf({ words: 16, tokens: 52 }, { words: 112, tokens: 244 });
  assert.deepEqual(fit, { perWord: 2, fixed: 20 });
  assert.equal(wordCountFor(120, fit, "prompt"), 50);
  assert.equal(wordCountFor(120, fit, "prefix"), 60);
  assert.equal(wordCountFor(5, fit, "prompt"), 1);
});

test("fitOf: counts that do not rise say nothing", () => {
  assert.deepEqual(fitOf({ words: 16, tokens: 9 }, { words: 112, tokens: 9 }), ONE_A_WORD);
});

test("makePictures: PNGs of the sizes in turn, all different, the same for the same seed", async () => {
  const sizes = [
    { width: 40, height: 24 },
    { width: 17, height: 33 },
  ];
  const [first, again] = await Promise.all(
    [0, 1].map(() => makePictures(sizes, { count: 4, seed: 3 })),
  );
  assert.deepEqual(first, again);
  const seen = await Promise.all((first ?? []).map(({ data }) => sharp(data).metadata()));
  assert.deepEqual(
    seen.map(({ format, width, height }) => [format, width, height]),
    [40, 17, 40, 17].map((width) => ["png", width, width === 40 ? 24 : 33]),
  );
  assert.equal(new Set(first?.map(({ url }) => url)).size, 4);
  const pixels = await Promise.all((first ?? []).map(({ data }) => sharp(data).raw().toBuffer()));
  // Squares of 16: a corner's pixel is its square's, the next square has another colour.
  const [a] = pixels;
  assert.deepEqual(a?.subarray(0, 3), a?.subarray(15 * 3, 16 * 3));
  assert.notDeepEqual(a?.subarray(0, 3), a?.subarray(16 * 3, 17 * 3));
});
