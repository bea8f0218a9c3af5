import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { imageLayout, placeImage, type ModelType } from "@tessera/model";
import { imageText } from "./image-text.js";
import { PAD, renderPrompt, tileTags } from "./prompt.js";
import { loadTokenizer } from "./tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "tessera-image-text-"));
after(() => rm(folder, { recursive: true }));
await cp(root("test/fixtures/qwen2-tokenizer"), folder, { recursive: true });
const config = "tokenizer_config.json";
await cp(root(`test/fixtures/nvlm-d-72b/${config}`), join(folder, config));
const tokenizer = await loadTokenizer(folder);
const ROWS = 256;
const PATCHES = Array.from({ length: 13 }, (_, i) => i + 1);

/** The block as a prompt has it, alone and with a newline behind it. */
function rendered(modelType: ModelType, patches: number) {
  const parts = [
    { kind: "image" as const, image: 0 },
    { kind: "text" as const, text: "\n" },
  ];
  const layout = imageLayout({ modelType });
  const options = { template: "raw" as const, patches: [patches], rowsPerTile: ROWS, layout };
  return renderPrompt(tokenizer, [{ role: "user", parts }], options);
}

function place(modelType: ModelType, patches: number) {
  return placeImage(imageLayout({ modelType }), imageText(patches, tokenizer), ROWS);
}

test("imageText: without a tokenizer the counts are those of the public one, 1 to 13 tiles", () => {
  for (const patches of PATCHES)
    assert.deepEqual(imageText(patches), imageText(patches, tokenizer), `${patches} tiles`);
});

test("imageText: D's block has the published lengths", () => {
  const lengths = [1, 3, 5, 7, 13].map((patches) => place("NVLM_D", patches).tokens);
  assert.deepEqual(lengths, [265, 787, 1309, 1831, 3400]);
});

test("placeImage: D's tokens and tiles are where the prompt has them", () => {
  for (const patches of PATCHES) {
    const { ids, tags } = rendered("NVLM_D", patches);
    const block = place("NVLM_D", patches);
    assert.equal(block.tokens, ids.length);
    const starts = block.tiles.map(({ rows }) => rows?.start);
    assert.deepEqual(
      starts,
      tags.map(({ position }) => position),
    );
  }
});

test("placeImage: X has D's ids without the placeholders, H has D's block of one tile", () => {
  const pad = tokenizer.specialId(PAD);
  for (const patches of PATCHES) {
    const text = rendered("NVLM_D", patches).ids.filter((id) => id !== pad);
    assert.deepEqual(rendered("NVLM_X", patches).ids, text);
    assert.equal(place("NVLM_X", patches).tokens, text.length);
    assert.deepEqual(rendered("NVLM_H", patches).ids, rendered("NVLM_D", 1).ids);
    assert.equal(place("NVLM_H", patches).tokens, rendered("NVLM_D", 1).ids.length);
  }
});

test("placeImage: H's stream has every regular tile behind the ids of its tag", () => {
  for (const patches of PATCHES) {
    const tags = tileTags(patches).slice(0, -1);
    const ids = tags.map((tag) => tokenizer.encode(tag, { special: false }).length);
    const { tiles, streamRows } = place("NVLM_H", patches);
    const counts = tiles.slice(0, -1).map(({ streamTag }) => streamTag?.count);
    assert.deepEqual(counts, ids);
    assert.equal(
      streamRows,
      ids.reduce((sum, count) => sum + count + ROWS, 0),
    );
  }
});
