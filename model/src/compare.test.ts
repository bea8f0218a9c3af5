import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { compareVariants, type VariantCost } from "./compare.js";
import { parseConfig } from "./config.js";
import type { ImageText } from "./image-block.js";
import { siblingConfig } from "./sibling.js";

async function configOf(folder: string) {
  const path = fileURLToPath(new URL(`../../${folder}/config.json`, import.meta.url));
  return parseConfig(JSON.parse(await readFile(path, "utf8")));
}
const d72b = await configOf("test/fixtures/nvlm-d-72b");

/** Of the public tokenizer: the first tag has 6 ids with `<Image>`, others 5, `</Image>` and a newline 3. */
const seven: ImageText = {
  ids: { all: [6, 5, 5, 5, 5, 5, 5, 3], thumbnail: [6, 3] },
  tagIds: [5, 5, 5, 5, 5, 5, 5],
};
const one: ImageText = { ids: { all: [6, 3], thumbnail: [6, 3] }, tagIds: [5] };

function costs(text: ImageText, size = 8, maxBatchedTokens = 2048): VariantCost[] {
  return compareVariants(d72b, { size, kvType: "bf16", maxBatchedTokens, text });
}
const of = (list: VariantCost[], key: keyof VariantCost) => list.map((cost) => cost[key]);

test("7 patches: 1831 tokens in D; 39 and 1792 rows of the stream in X; 265 and 1566 in H", () => {
  const list = costs(seven);
  assert.deepEqual(of(list, "modelType"), ["NVLM_D", "NVLM_X", "NVLM_H"]);
  assert.deepEqual(of(list, "decoderTokens"), [1831, 39, 265]);
  assert.deepEqual(of(list, "streamRows"), [0, 1792, 1566]);
});

test("7 patches: 327,680 bytes of cache a token, 40,960 a row of the stream in 10 layers", () => {
  const list = costs(seven);
  assert.deepEqual(of(list, "cacheBytes"), [599_982_080, 12_779_520, 86_835_200]);
  assert.deepEqual(of(list, "crossCacheBytes"), [0, 73_400_320, 64_143_360]);
  assert.deepEqual(of(list, "crossLayers")[1], [7, 15, 23, 31, 39, 47, 55, 63, 71, 79]);
});

test("flops of the encoder: patches, 45 layers over 1025 places, the variant's projector over 256 rows", () => {
  const layer =
    1025 * 2 * (3200 * 9600 + 3200 * 3200 + 2 * 3200 * 12800) + 4 * 25 * 128 * 1025 ** 2;
  const encoder = 1024 * 2 * 588 * 3200 + 45 * layer;
  const mlp = encoder + 256 * 2 * (12800 * 29568 + 29568 * 8192);
  const linear = encoder + 256 * 2 * 12800 * 8192;
  assert.deepEqual(of(costs(one), "encodeFlops"), [mlp, linear, mlp]);
  assert.deepEqual(of(costs(seven), "encodeFlops"), [7 * mlp, 7 * linear, 7 * mlp]);
});

/** Linears and causal self-attention of `tokens` tokens through 80 layers. */
function decoder(tokens: number): number {
  const linears = 2 * 8192 * (10240 + 8192 + 2 * 29568 + 29568);
  const pairs = (tokens * (tokens + 1)) / 2;
  return 80 * (tokens * linears + 4 * 64 * 128 * pairs);
}

/** Of 10 layers: q and o of the tokens, k and v of the stream, attention over what tokens see. */
function cross(tokens: number, rows: number, sights: number): number {
  const linears = tokens * 2 * 2 * 8192 * 8192 + rows * 2 * 8192 * 2048;
  return 10 * (linears + 4 * 64 * 128 * sights);
}

test("flops of the prefill: the decoder's tokens, and cross-attention over what each sees", () => {
  // X: 36 ids of tags see a tile of 256 rows, the 3 of `</Image>` all 1792. H: all tokens see all rows.
  const x = decoder(39) + cross(39, 1792, 36 * 256 + 3 * 1792);
  const h = decoder(265) + cross(265, 1566, 265 * 1566);
  assert.deepEqual(of(costs(seven), "prefillFlops"), [decoder(1831), x, h]);
});

test("one tile: H is D, and pays nothing for cross-attention", () => {
  const [d, x, h] = costs(one);
  const same = ["decoderTokens", "cacheBytes", "exchangeBytes", "prefillFlops"] as const;
  for (const key of same) assert.equal(h?.[key], d?.[key], key);
  assert.deepEqual([h?.streamRows, h?.crossCacheBytes], [0, 0]);
  assert.deepEqual([x?.decoderTokens, x?.streamRows], [9, 256]);
});

test("exchange over 8: embeddings to 7 others, partial sums to owners and back, the stream's tags in H", () => {
  const embeddings = 7 * 7 * 256 * 8192 * 4;
  const row = 7 * (4 + 4) * 8192;
  const [d, x, h] = of(costs(seven), "exchangeBytes");
  assert.equal(d, embeddings + 161 * 1831 * row);
  assert.equal(x, embeddings + 171 * 39 * row);
  assert.equal(h, embeddings + 171 * 265 * row + 1566 * row);
  assert.deepEqual(of(costs(seven, 1), "exchangeBytes"), [0, 0, 0]);
});

test("exchange: a prompt of several steps counts the last step's few rows as they are sent", () => {
  const [d] = of(costs(seven, 8, 915), "exchangeBytes");
  // 915, 915 and 1: a single row goes to all, 7 partials from each of 8 ranks.
  const embeddings = 7 * 7 * 256 * 8192 * 4;
  assert.equal(d, embeddings + 161 * (1830 * 7 * 8 * 8192 + 7 * 8 * 4 * 8192));
});

test("weights: X and H add 10 cross-attentions, X has the smaller projector", () => {
  const [d = 0, x = 0, h = 0] = of(costs(one), "weightBytes").map(Number);
  const crosses = 10 * (2 * 8192 * (2 * 8192 + 2 * 1024) + 4 * (8192 + 8192 + 1));
  const mlp = 2 * (29568 * 12800 + 8192 * 29568);
  assert.equal(h - d, crosses);
  assert.equal(x - d, crosses + 2 * 8192 * 12800 - mlp);
});

test("siblingConfig: from X to D and back, and to H with X's own cross-attention", async () => {
  const x = await configOf("models/nvlm-x-tiny");
  const h = await configOf("models/nvlm-h-tiny");
  assert.deepEqual(siblingConfig(x, "NVLM_H"), h);
  assert.deepEqual(siblingConfig(x, "NVLM_D"), await configOf("models/nvlm-d-tiny"));
  assert.equal(siblingConfig(x, "NVLM_X"), x);
});

test("siblingConfig: fewer than 8 layers have cross-attention in every second, as the tiny X", async () => {
  const d = await configOf("models/nvlm-d-tiny");
  assert.deepEqual(siblingConfig(d, "NVLM_X"), await configOf("models/nvlm-x-tiny"));
  const layers = (count: number) =>
    siblingConfig({ ...d, decoder: { ...d.decoder, layers: count } }, "NVLM_H").cross?.layers;
  assert.deepEqual([layers(1), layers(2), layers(7)], [[0], [1], [1, 3, 5]]);
  assert.deepEqual([layers(8), layers(17)], [[7], [7, 15]]);
});
