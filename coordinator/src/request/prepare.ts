/** A checked request → tiles and token ids. Pictures are decoded here, after an admission slot is taken. */
import { BLOCK_TOKENS, type ImageLayout } from "@tessera/model";
import { ServeError } from "@tessera/proto";
import type { CheckContext } from "./check-context.js";
import type { CheckedImage } from "./check-messages.js";
import type { CheckedRequest } from "./check.js";
import { decodeImage } from "./image-decode.js";
import { renderPrompt, type ChatTemplate, type RenderedPrompt } from "./prompt.js";
import { sightsOf, streamsOf } from "./sight.js";
import { checkTextBytes, textBytes } from "./text-limit.js";
import { tileImage } from "./tiling.js";
import type { ImageRowRun, PreparedRequest, PreparedStream, PreparedTile } from "./types.js";

export interface PrepareContext extends CheckContext {
  tile: { size: number; useThumbnail: boolean; rows: number };
  template: ChatTemplate;
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

/** @throws ServeError INVALID_IMAGE, CONTEXT_TOO_LONG; the signal's reason when it is aborted. */
export async function prepareRequest(
  checked: CheckedRequest,
  of: { requestId: string; tenant: string; onDecode?: () => void },
  context: PrepareContext,
  signal: AbortSignal,
): Promise<PreparedRequest> {
  const { onDecode, ...identity } = of;
  if ("turns" in checked.prompt)
    checkTextBytes(textBytes(checked.prompt.turns), { ...context, field: "messages" });
  const perImage = await cutImages(checked.images, context, { signal, onDecode });
  const rendered =
    "tokenIds" in checked.prompt
      ? { ids: checked.prompt.tokenIds, starts: [], tags: [] }
      : renderPrompt(context.tokenizer, checked.prompt.turns, {
          template: context.template,
          patches: perImage.map((list) => list.length),
          rowsPerTile: context.tile.rows,
          layout: context.layout,
          tools: checked.shownTools,
          open: checked.prompt.open,
        });
  const beyond = rendered.ids.find((id) => id >= context.selectableIds);
  if (beyond !== undefined)
    throw ServeError.field(
      "messages",
      `have token ${beyond}, the vocabulary ends at ${context.selectableIds - 1}`,
    );
  const room = context.maxModelLen - rendered.ids.length;
  if (room < 1 || (checked.maxTokens !== undefined && checked.maxTokens > room))
    throw ServeError.field(
      "max_tokens",
      `prompt of ${rendered.ids.length} tokens and ${checked.maxTokens ?? 1} to make, the context has ${context.maxModelLen}`,
      "CONTEXT_TOO_LONG",
    );
  const merged = mergeTiles(perImage);
  const placed = placeImages(rendered, merged, context);
  checkRoom(merged.distinct.length, placed.streams, context);
  const { prompt: _prompt, images: _images, requestId: _id, shownTools: _tools, ...rest } = checked;
  return {
    ...rest,
    ...identity,
    promptIds: rendered.ids,
    ...placed,
    tiles: merged.distinct,
    imageTokenCount: placed.imageRows.length * context.tile.rows,
    tileCount: perImage.flat().length,
    maxTokens: checked.maxTokens ?? room,
  };
}
