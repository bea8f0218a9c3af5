/** Where the tiles of one image stand: in the text, in its stream, or in both. */
import assert from "node:assert/strict";
import type { Range } from "./lanes.js";
import type { ImageLayout } from "./program.js";

/** How many token ids the text of an image takes. */
export interface ImageText {
  /**
   * By the tags that stand in the text: ids before each of their tiles, the first from `<Image>` on, then those from
   * behind the last tile to the end of `</Image>` and its newline.
   */
  ids: Record<ImageLayout["tags"], number[]>;
  /** Ids of each tile's tag by itself, thumbnail last. */
  tagIds: number[];
}

/** Ranges of the block's tokens, and of the stream's rows, counted from the image's first; absent: not there. */
export interface TilePlace {
  /** The tag in the text; `<Image>` belongs to the first. */
  tag?: Range;
  /** The tile's rows in the text. */
  rows?: Range;
  /** Embeddings of the tag's ids in the stream. */
  streamTag?: Range;
  streamRows?: Range;
}

export interface ImageBlock {
  /** Of the decoder, from `<Image>` to `</Image>` and its newline. */
  tokens: number;
  /** Of the image's stream. */
  streamRows: number;
  /** Thumbnail last. */
  tiles: TilePlace[];
  /** Over the block's tokens: rows of the stream that each sees. */
  sights: number;
}

interface Text {
  tokens: number;
  places: Map<number, { tag: Range; rows?: Range }>;
}

function placeText(layout: ImageLayout, text: ImageText, rows: number): Text {
  const patches = text.tagIds.length;
  const tiles = text.tagIds.map((_, i) => i).slice(layout.tags === "all" ? 0 : patches - 1);
  const ids = text.ids[layout.tags];
  assert(ids.length === tiles.length + 1, `${ids.length} counts for ${tiles.length} tags`);
  const places: Text["places"] = new Map();
  let tokens = 0;
  tiles.forEach((tile, i) => {
    const tag = { start: tokens, count: ids[i] ?? 0 };
    tokens += tag.count;
    if (!layout.rowsInText) return void places.set(tile, { tag });
    places.set(tile, { tag, rows: { start: tokens, count: rows } });
    tokens += rows;
  });
  return { tokens: tokens + (ids.at(-1) ?? 0), places };
}

interface Stream {
  rows: number;
  places: Map<number, { streamTag?: Range; streamRows: Range }>;
}

function placeStream({ stream }: ImageLayout, text: ImageText, rows: number): Stream {
  const places: Stream["places"] = new Map();
  let at = 0;
  const tiles = stream === undefined ? [] : text.tagIds.map((_, i) => i);
  for (const tile of stream?.tiles === "regular" ? tiles.slice(0, -1) : tiles) {
    const tag = { start: at, count: stream?.tagged === true ? (text.tagIds[tile] ?? 0) : 0 };
    const streamRows = { start: at + tag.count, count: rows };
    places.set(tile, tag.count > 0 ? { streamTag: tag, streamRows } : { streamRows });
    at += tag.count + rows;
  }
  return { rows: at, places };
}

/** Tokens of a tag see their own tile where the layout says so; all others see the whole stream. */
function countSights(layout: ImageLayout, text: Text, stream: Stream): number {
  if (layout.stream?.ownTileAtTags !== true) return text.tokens * stream.rows;
  const tags = [...text.places].map(([tile, { tag }]) => {
    const place = stream.places.get(tile);
    const own = (place?.streamTag?.count ?? 0) + (place?.streamRows.count ?? 0);
    return { tokens: tag.count, sights: tag.count * own };
  });
  const tagTokens = tags.reduce((sum, { tokens }) => sum + tokens, 0);
  const sights = tags.reduce((sum, tag) => sum + tag.sights, 0);
  return sights + (text.tokens - tagTokens) * stream.rows;
}

/** `rows`: image embeddings of a tile; the image has `text.tagIds.length` tiles, the thumbnail counted. */
export function placeImage(layout: ImageLayout, text: ImageText, rows: number): ImageBlock {
  const inText = placeText(layout, text, rows);
  const inStream = placeStream(layout, text, rows);
  return {
    tokens: inText.tokens,
    streamRows: inStream.rows,
    tiles: text.tagIds.map((_, i) => ({ ...inText.places.get(i), ...inStream.places.get(i) })),
    sights: countSights(layout, inText, inStream),
  };
}
