/** A checked request → tiles and token ids. Pictures are decoded here, after an admission slot is taken. */
import { ServeError } from "@tessera/proto";
import type { CheckContext, CheckedImage, CheckedRequest } from "./check.js";
import { decodeImage } from "./image-decode.js";
import { renderPrompt, type ChatTemplate } from "./prompt.js";
import { tileImage } from "./tiling.js";
import type { ImageRowRun, PreparedRequest, PreparedTile } from "./types.js";

export interface PrepareContext extends CheckContext {
  tile: { size: number; useThumbnail: boolean; rows: number };
  template: ChatTemplate;
}

async function cutImages(images: CheckedImage[], context: PrepareContext, signal: AbortSignal) {
  const perImage: PreparedTile[][] = [];
  for (const image of images) {
    signal.throwIfAborted();
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

/** Equal tiles become one; `places[i]` is where the rows of the i-th tile begin. */
function mergeTiles(tiles: PreparedTile[], places: number[], rows: number) {
  const distinct: PreparedTile[] = [];
  const index = new Map<string, number>();
  const imageRows = tiles.map((tile, i): ImageRowRun => {
    const known = index.get(tile.sha256) ?? distinct.push(tile) - 1;
    index.set(tile.sha256, known);
    return { position: places[i] ?? 0, tile: known, firstRow: 0, count: rows };
  });
  return { distinct, imageRows };
}

/** @throws ServeError INVALID_IMAGE, CONTEXT_TOO_LONG; the signal's reason when it is aborted. */
export async function prepareRequest(
  checked: CheckedRequest,
  identity: { requestId: string; tenant: string },
  context: PrepareContext,
  signal: AbortSignal,
): Promise<PreparedRequest> {
  const perImage = await cutImages(checked.images, context, signal);
  const tiles = perImage.flat();
  const rendered =
    "tokenIds" in checked.prompt
      ? { ids: checked.prompt.tokenIds, places: [] }
      : renderPrompt(context.tokenizer, checked.prompt.turns, {
          template: context.template,
          patches: perImage.map((list) => list.length),
          rowsPerTile: context.tile.rows,
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
  const { distinct, imageRows } = mergeTiles(tiles, rendered.places, context.tile.rows);
  const { prompt: _prompt, images: _images, requestId: _id, ...rest } = checked;
  return {
    ...rest,
    ...identity,
    promptIds: rendered.ids,
    imageRows,
    tiles: distinct,
    imageTokenCount: tiles.length * context.tile.rows,
    tileCount: tiles.length,
    maxTokens: checked.maxTokens ?? room,
  };
}
