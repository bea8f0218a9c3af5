/** A checked request → tiles and token ids. Pictures are decoded here, after an admission slot is taken. */
import { BLOCK_TOKENS, type ImageLayout } from "@tessera/model";
import { ServeError } from "@tessera/proto";
import type { CheckContext } from "./check-context.js";
import type { CheckedImage } from "./check-messages.js";
import type { CheckedRequest } from "./check.js";
import { decodeImage } from "./image-decode.js";
import {
  joinPrompt,
  layOutPrompt,
  plainTexts,
  promptTokenCount,
  type ChatTemplate,
  type RenderedPrompt,
} from "./prompt.js";
import { sightsOf, streamsOf } from "./sight.js";
import { checkTextBytes, textBytes } from "./text-limit.js";
import type { TextEncoder } from "./text-queue.js";
import { tileImage } from "./tiling.js";
import type { ImageRowRun, PreparedRequest, PreparedStream, PreparedTile } from "./types.js";

export interface PrepareContext extends CheckContext {
  tile: { size: number; useThumbnail: boolean; rows: number };
  template: ChatTemplate;
  texts: TextEncoder;
  layout: ImageLayout;
  /** What the workers can hold. */
  room: { tiles: number; crossBlocks: number; streamRows: number };
}

async function cutImages(
  images: CheckedImage[],
  context: PrepareContext,
  of: { signal: AbortSignal; onDecode: (() => void) | undefined },
) {
  const perImage: PreparedTile[][] = [];
  for (const image of images) {
    of.signal.throwIfAborted();
    of.onDecode?.();
    const rgb = await decodeImage(image.data, { field: image.field, limits: context.limits.image });
    const options = {
      tileSize: context.tile.size,
      maxTiles: image.maxTiles,
      useThumbnail: context.tile.useThumbnail,
    };
    perImage.push((await tileImage(rgb, options)).tiles);
  }
  return perImage;
}

/** Equal tiles become one. → distinct tiles, and each image's tiles by their index among them. */
function mergeTiles(perImage: PreparedTile[][]) {
  const distinct: PreparedTile[] = [];
  const index = new Map<string, number>();
  const images = perImage.map((tiles) =>
    tiles.map((tile) => {
      const known = index.get(tile.sha256) ?? distinct.push(tile) - 1;
      index.set(tile.sha256, known);
      return known;
    }),
  );
  return { distinct, images };
}

/** What the text and cross-attention take of the images. */
function placeImages(
  prompt: Pick<RenderedPrompt, "starts" | "tags">,
  merged: { distinct: PreparedTile[]; images: number[][] },
  context: PrepareContext,
): Pick<PreparedRequest, "imageRows" | "streams" | "sights"> {
  const { layout, tile, tokenizer } = context;
  const rowsPerTile = tile.rows;
  const imageRows = prompt.tags.map(({ image, tile: index, position }): ImageRowRun => ({
    position,
    tile: merged.images[image]?.[index] ?? 0,
    firstRow: 0,
    count: rowsPerTile,
  }));
  const inText = layout.rowsInText ? imageRows : [];
  const { stream } = layout;
  if (stream === undefined) return { imageRows: inText, streams: [], sights: [] };
  const hashes = merged.distinct.map(({ sha256 }) => sha256);
  const of = streamsOf(tokenizer, { stream, rowsPerTile, images: merged.images, hashes });
  const sights = sightsOf(prompt, stream, { ...of, rowsPerTile });
  return { imageRows: inText, streams: of.streams, sights };
}

/** What the workers can hold of one request's pictures. @throws ServeError INVALID_ARGUMENT */
function checkRoom(
  tileCount: number,
  streams: PreparedStream[],
  { room }: Pick<PrepareContext, "room">,
): void {
  if (tileCount > room.tiles)
    throw ServeError.field(
      "messages",
      `have images of ${tileCount} different tiles, the workers hold ${room.tiles} (embedding-memory)`,
    );
  const rows = Math.max(0, ...streams.map(({ rowCount }) => rowCount));
  if (rows > room.streamRows)
    throw ServeError.field(
      "messages",
      `have an image of ${rows} rows for cross-attention, a step opens ${room.streamRows}`,
    );
  const blocks = streams.reduce((sum, { rowCount }) => sum + Math.ceil(rowCount / BLOCK_TOKENS), 0);
  if (blocks > room.crossBlocks)
    throw ServeError.field(
      "messages",
      `have images of ${blocks} blocks of the cross-attention cache, which has ${room.crossBlocks} (cross-cache-memory)`,
    );
}

/** Of a tile's tag, and what stands around a message. */
const MOST_TAG_TOKENS = 16;
const MOST_TURN_TOKENS = 64;

/** No prompt of this request can have more tokens: a token has a byte at least. Nothing is tokenised or decoded. */
export function mostPromptTokens(checked: CheckedRequest, context: PrepareContext): number {
  const { prompt, images, shownTools } = checked;
  if ("tokenIds" in prompt) return Math.min(prompt.tokenIds.length, context.maxModelLen);
  const turns = Buffer.byteLength(JSON.stringify([prompt, shownTools]));
  const perTile = MOST_TAG_TOKENS + (context.layout.rowsInText ? context.tile.rows : 0);
  const tiles = images.reduce((sum, image) => sum + (image.maxTiles + 1) * perTile, 0);
  return Math.min(turns + MOST_TURN_TOKENS + tiles, context.maxModelLen);
}

/** Tokens that may be made. @throws ServeError CONTEXT_TOO_LONG */
function roomBehind(
  tokenCount: number,
  { maxTokens }: CheckedRequest,
  { maxModelLen }: PrepareContext,
): number {
  const room = maxModelLen - tokenCount;
  if (room < 1 || (maxTokens !== undefined && maxTokens > room))
    throw ServeError.field(
      "max_tokens",
      `prompt of ${tokenCount} tokens and ${maxTokens ?? 1} to make, the context has ${maxModelLen}`,
      "CONTEXT_TOO_LONG",
    );
  return room;
}

/** @throws ServeError CONTEXT_TOO_LONG, and what `TextEncoder` throws */
async function render(
  checked: CheckedRequest,
  patches: number[],
  context: PrepareContext,
  of: { tenant: string; signal: AbortSignal },
): Promise<RenderedPrompt> {
  const { prompt, shownTools: tools } = checked;
  if ("tokenIds" in prompt) return { ids: prompt.tokenIds, starts: [], tags: [], text: "" };
  const { template, layout, tile } = context;
  const pieces = layOutPrompt(context.tokenizer, prompt.turns, {
    template,
    patches,
    rowsPerTile: tile.rows,
    layout,
    tools,
    open: prompt.open,
  });
  const texts = plainTexts(pieces);
  const encoded = await context.texts.encode(texts, { ...of, field: "messages" });
  // What is too long for the context is not put together.
  roomBehind(promptTokenCount(pieces, encoded), checked, context);
  return joinPrompt(pieces, encoded);
}

export interface PreparationOf {
  requestId: string;
  tenant: string;
  /** Runs the decoding of pictures when it is its turn. */
  inTurn?: <T>(work: () => Promise<T>) => Promise<T>;
  onDecode?: () => void;
}

/** @throws ServeError INVALID_IMAGE, CONTEXT_TOO_LONG, OVERLOADED; the signal's reason when it is aborted. */
export async function prepareRequest(
  checked: CheckedRequest,
  of: PreparationOf,
  context: PrepareContext,
  signal: AbortSignal,
): Promise<PreparedRequest> {
  const { requestId, tenant, inTurn = (work) => work(), onDecode } = of;
  if ("turns" in checked.prompt)
    checkTextBytes(textBytes(checked.prompt.turns), { ...context, field: "messages" });
  const { images } = checked;
  const perImage =
    images.length === 0 ? [] : await inTurn(() => cutImages(images, context, { signal, onDecode }));
  const patches = perImage.map((list) => list.length);
  const rendered = await render(checked, patches, context, { tenant, signal });
  const beyond = rendered.ids.find((id) => id >= context.selectableIds);
  if (beyond !== undefined)
    throw ServeError.field(
      "messages",
      `have token ${beyond}, the vocabulary ends at ${context.selectableIds - 1}`,
    );
  const room = roomBehind(rendered.ids.length, checked, context);
  const merged = mergeTiles(perImage);
  const placed = placeImages(rendered, merged, context);
  checkRoom(merged.distinct.length, placed.streams, context);
  const { prompt: _prompt, images: _images, requestId: _id, shownTools: _tools, ...rest } = checked;
  return {
    ...rest,
    requestId,
    tenant,
    promptIds: rendered.ids,
    ...placed,
    tiles: merged.distinct,
    imageTokenCount: placed.imageRows.length * context.tile.rows,
    tileCount: perImage.flat().length,
    maxTokens: checked.maxTokens ?? room,
  };
}
