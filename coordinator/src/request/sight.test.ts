/** Prompts of NVLM-X and NVLM-H: the oracle's ids and masks, and a plain mask written from spec 14. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { imageLayout, openModel, type ImageLayout } from "@tessera/model";
import { PAD, renderPrompt, tileTags, type Turn, type TurnPart } from "./prompt.js";
import { sightsOf, streamsOf } from "./sight.js";
import { loadTokenizer } from "./tokenizer.js";
import type { PreparedStream, Sight } from "./types.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const tokenizer = await loadTokenizer(root("models/nvlm-x-tiny"));
const ROWS = 16;

interface Golden {
  name: string;
  images: string[];
  turns: [string, string | null][];
  prompt_ids: number[];
  image_positions?: number[];
  stream: [image: number, tile: number, tag: number[]][];
  sees: [from: number, to: number, low: number, high: number][];
  tiles: { sha256: string[] }[];
}

/** A conversation and its images, of `patches[i]` tiles named by `tiles`, as the request part sees them. */
function place(layout: ImageLayout, turns: Turn[], tiles: string[][]) {
  const { stream } = layout;
  assert.ok(stream !== undefined);
  const hashes = [...new Set(tiles.flat())];
  const images = tiles.map((list) => list.map((hash) => hashes.indexOf(hash)));
  const prompt = renderPrompt(tokenizer, turns, {
    template: "nvlm",
    patches: tiles.map((list) => list.length),
    rowsPerTile: ROWS,
    layout,
  });
  const streams = streamsOf(tokenizer, { stream, rowsPerTile: ROWS, images, hashes });
  return {
    prompt,
    ...streams,
    sights: sightsOf(prompt, stream, { ...streams, rowsPerTile: ROWS }),
  };
}

/** `image` names the images in order. */
function turnsOf(golden: Golden): Turn[] {
  let image = 0;
  return golden.turns.flatMap(([role, text]) => {
    if (text === null) return [];
    const parts = text
      .split(/(<image>)/)
      .map((piece): TurnPart =>
        piece === "<image>" ? { kind: "image", image: image++ } : { kind: "text", text: piece },
      );
    return [{ role: role as Turn["role"], parts }];
  });
}

/** Per token the rows it sees, counted over all images' streams one after another. */
function expand(
  tokenCount: number,
  placed: { sights: Sight[]; streams: PreparedStream[] },
  offsets: number[],
): number[][] {
  return Array.from({ length: tokenCount }, (_, token) => {
    const sight = placed.sights.findLast(({ position }) => position <= token);
    return (sight?.ranges ?? []).flatMap(({ stream, first, end }) =>
      Array.from({ length: end - first }, (_row, i) => (offsets[stream] ?? 0) + first + i),
    );
  });
}

/** First row of each stream when they lie one after another. */
function offsetsOf(streams: PreparedStream[]): number[] {
  let rows = 0;
  return streams.map(({ rowCount }) => (rows += rowCount) - rowCount);
}

const words = fc.array(
  fc.constantFrom(
    "Read",
    " the text",
    ".",
    "\n",
    " ",
    "é",
    "中文",
    "<",
    "<tile_1>",
    "</Image>",
    "(",
    "#",
    "🙂",
  ),
  { maxLength: 5 },
);
/** Texts and images, alternating; an image is its number of tiles. */
const parts = fc.array(
  fc.oneof(
    words.map((list) => list.join("")),
    fc.integer({ min: 0, max: 6 }),
  ),
  {
    minLength: 1,
    maxLength: 4,
  },
);
const conversations = fc.array(parts, { minLength: 1, maxLength: 3 }).map((list) => {
  const tiles: string[][] = [];
  const turns = list.flatMap((turn, i): Turn[] => [
    {
      role: "user",
      parts: turn.map((part): TurnPart => {
        if (typeof part === "string") return { kind: "text", text: part };
        // One tile, or regular ones and the thumbnail; no two images are equal.
        const count = part < 2 ? 1 : part + 1;
        const image =
          tiles.push(Array.from({ length: count }, (_, k) => `${tiles.length}.${k}`)) - 1;
        return { kind: "image", image };
      }),
    },
    ...(i + 1 < list.length
      ? [{ role: "assistant" as const, parts: [{ kind: "text" as const, text: "Fine." }] }]
      : []),
  ]);
  return { turns, tiles };
});

/** The whole prompt as one text, its images as spec 14 writes them, and where in it their blocks begin. */
function wholeText(layout: ImageLayout, turns: Turn[], tiles: string[][]) {
  const starts: number[] = [];
  const run = PAD.repeat(layout.rowsInText ? ROWS : 1);
  let text = "<|im_start|>system\nAnswer the questions.<|im_end|>";
  for (const { role, parts } of turns) {
    text += `<|im_start|>${role}\n`;
    for (const part of parts) {
      if (part.kind !== "image") {
        text += part.text;
        continue;
      }
      starts.push(Buffer.byteLength(text.normalize("NFC")));
      const all = tileTags(tiles[part.image]?.length ?? 0);
      const shown = layout.tags === "all" ? all : all.slice(-1);
      text += `<Image>${shown.map((tag) => tag + run).join("")}</Image>`;
    }
    const empty = parts.every((part) => part.kind === "text" && part.text === "");
    text += empty ? "" : "<|im_end|>";
  }
  return { text: `${text}<|im_start|>assistant\n`, starts };
}

/** Token by token and row by row: whose image, which tile, who may see it. */
function plainMask(layout: ImageLayout, turns: Turn[], tiles: string[][]) {
  const { text, starts } = wholeText(layout, turns, tiles);
  const all = tokenizer.encode(text, { special: true });
  const pad = tokenizer.specialId(PAD);
  const own = layout.stream?.ownTileAtTags === true;
  const rows = tiles.flatMap((list, image) =>
    list.slice(0, own ? undefined : -1).flatMap((_, tile) => {
      const tag =
        layout.stream?.tagged === true
          ? tokenizer.encode(`<tile_${tile + 1}>`, { special: false })
          : [];
      return Array.from({ length: tag.length + ROWS }, () => ({ image, tile }));
    }),
  );
  const ids: number[] = [];
  const sees: number[][] = [];
  let end = 0;
  let tagsDone = 0;
  for (const id of all) {
    end += tokenizer.tokenBytes(id).length;
    const begun = starts.filter((start) => start < end).length;
    if (id === pad) tagsDone++;
    if (id === pad && own) continue;
    const before = tiles.slice(0, begun - 1).reduce((sum, list) => sum + list.length, 0);
    const inTags = own && begun > 0 && tagsDone < before + (tiles[begun - 1]?.length ?? 0);
    ids.push(id);
    sees.push(
      rows.flatMap(({ image, tile }, row) => {
        const visible = inTags ? image === begun - 1 && tile === tagsDone - before : image < begun;
        return visible ? [row] : [];
      }),
    );
  }
  return { ids, sees };
}

for (const variant of ["x", "h"]) {
  const { config } = await openModel(root(`models/nvlm-${variant}-tiny`));
  const layout = imageLayout(config);
  const file = await readFile(root(`test/goldens/nvlm-${variant}-tiny.json`), "utf8");
  const { requests: goldens } = JSON.parse(file) as { requests: Golden[] };

  test(`nvlm-${variant}: prompt ids, streams and masks of the goldens are the oracle's`, () => {
    assert.ok(goldens.length >= 17);
    for (const golden of goldens) {
      const tiles = golden.tiles.map(({ sha256 }) => sha256);
      const placed = place(layout, turnsOf(golden), tiles);
      const { ids, tags } = placed.prompt;
      assert.deepEqual(ids, golden.prompt_ids, golden.name);
      const rows = tags.flatMap(({ position }) =>
        Array.from({ length: layout.rowsInText ? ROWS : 0 }, (_, i) => position + i),
      );
      assert.deepEqual(rows, golden.image_positions ?? [], golden.name);
      const tagIds = placed.byImage.flatMap((stream) =>
        stream === undefined
          ? []
          : (placed.streams[stream]?.tiles.map((tile) => tile.tagIds) ?? []),
      );
      assert.deepEqual(
        tagIds,
        golden.stream.map(([, , tag]) => tag),
        golden.name,
      );
      const want = golden.sees.flatMap(([from, to, low, high]) =>
        Array.from({ length: to - from }, () =>
          Array.from({ length: high - low }, (_, i) => low + i),
        ),
      );
      const sees = expand(want.length, placed, offsetsOf(placed.streams));
      assert.deepEqual(sees, want, golden.name);
    }
  });

  test(`nvlm-${variant}: any turns, texts and images have the mask that spec 14 says`, () => {
    fc.assert(
      fc.property(conversations, (conversation) => {
        const { turns, tiles } = conversation;
        const placed = place(layout, turns, tiles);
        const plain = plainMask(layout, turns, tiles);
        assert.deepEqual(placed.prompt.ids, plain.ids);
        assert.deepEqual(expand(plain.ids.length, placed, offsetsOf(placed.streams)), plain.sees);
      }),
      { numRuns: 300 },
    );
  });
}
