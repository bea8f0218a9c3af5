/** What `tessera tiles --explain` tells: the grid's choice, and where each tile goes. */
import { writeFile } from "node:fs/promises";
import type { ImageBlock, ModelConfig, ModelType, TilePlace } from "@tessera/model";
import type { GridChoice, TileRoute, TilingOptions } from "@tessera/coordinator/request";
import { openTokenizer } from "./model-tokenizer.js";

export const VARIANTS = { D: "NVLM_D", X: "NVLM_X", H: "NVLM_H" } as const;
/** Pixels of the vision encoder's patch; two by two of them become a row. */
const PATCH = 14;

interface Image {
  width: number;
  height: number;
  data: Uint8Array;
}
interface Cut {
  grid: [number, number];
  tiles: { pixels: Uint8Array }[];
}

export interface Asked {
  file: string;
  /** Where the picture is written. */
  picture: string;
  config: ModelConfig | undefined;
  model: string | undefined;
  variant: keyof typeof VARIANTS | undefined;
  options: TilingOptions;
}

/** Tokens count from the image's first in the text, rows from the stream's first. */
export interface PlacedTile extends TilePlace {
  /** From 1. */
  tile: number;
  tagText: string;
  /** Of the tag by itself; with a tokenizer only. */
  tagIds?: number[];
}

export interface Placement {
  modelType: ModelType;
  /** What the text's tokens see of the stream; absent without one. */
  sight?: "own tile at tags, then all" | "all";
  tiles: PlacedTile[];
}

export interface Explanation {
  file: string;
  picture: string;
  tileSize: number;
  maxTiles: number;
  choice: GridChoice;
  /** Whose token counts are used. */
  tokenizer: "model" | "public";
  /** Empty where the tile's size gives no whole rows. */
  sizes: { modelType: ModelType; decoderTokens: number; streamRows: number }[];
  /** Absent when no variant is asked for. */
  placement?: Placement;
}

/** Image embeddings of a tile; undefined for a size that the encoder does not fold into whole rows. */
function rowsOfTile({ config, options, variant }: Asked): number | undefined {
  if (config !== undefined) return config.tile.rows;
  const side = options.tileSize / (2 * PATCH);
  if (Number.isInteger(side)) return side ** 2;
  if (variant === undefined) return undefined;
  throw new Error(
    `--image-size ${options.tileSize}: with --variant it must be a multiple of ${2 * PATCH}`,
  );
}

/** A tile goes where its rows go. */
function routeOf(place: TilePlace | undefined): TileRoute {
  if (place === undefined) return "tile";
  return place.streamRows === undefined ? "text" : "stream";
}

function variantOf({ variant, config }: Asked): ModelType | undefined {
  return variant === undefined ? config?.modelType : VARIANTS[variant];
}

interface Counted {
  tokenizer: "model" | "public";
  tags: { tagText: string; tagIds?: number[] }[];
  /** Of each variant; undefined where a tile has no whole number of rows. */
  block: (modelType: ModelType) => ImageBlock | undefined;
}

async function count(asked: Asked, patches: number): Promise<Counted> {
  const { imageLayout, placeImage } = await import("@tessera/model");
  const { imageText, tileTags } = await import("@tessera/coordinator/request");
  const tokenizer = asked.model === undefined ? undefined : await openTokenizer(asked.model);
  const text = imageText(patches, tokenizer);
  const rows = rowsOfTile(asked);
  const tags = tileTags(patches).map((tagText) => ({
    tagText,
    ...(tokenizer && { tagIds: tokenizer.encode(tagText, { special: false }) }),
  }));
  return {
    tokenizer: tokenizer === undefined ? "public" : "model",
    tags,
    block: (modelType) =>
      rows === undefined ? undefined : placeImage(imageLayout({ modelType }), text, rows),
  };
}

async function draw(image: Image, cut: Cut, asked: Asked, tiles: TilePlace[] | undefined) {
  const { drawTiles } = await import("@tessera/coordinator/request");
  const [across, down] = cut.grid;
  const thumbnail = cut.tiles[across * down];
  const { png } = await drawTiles(image, {
    grid: { columns: across, rows: down },
    routes: cut.tiles.map((_, i) => routeOf(tiles?.[i])),
    ...(thumbnail && { thumbnail: { pixels: thumbnail.pixels, size: asked.options.tileSize } }),
  });
  await writeFile(asked.picture, png).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`--explain ${asked.picture}: cannot be written: ${why}`, { cause: error });
  });
}

async function sightOf(
  modelType: ModelType,
  block: ImageBlock | undefined,
): Promise<Pick<Placement, "sight">> {
  const { imageLayout } = await import("@tessera/model");
  const { stream } = imageLayout({ modelType });
  if (stream === undefined || block?.streamRows === 0) return {};
  return { sight: stream.ownTileAtTags ? "own tile at tags, then all" : "all" };
}

/** Draws the picture. @throws Error naming the flag when it cannot be written. */
export async function explainTiles(image: Image, cut: Cut, asked: Asked): Promise<Explanation> {
  const { explainGrid } = await import("@tessera/coordinator/request");
  const choice = explainGrid(image, asked.options);
  const { tokenizer, tags, block } = await count(asked, choice.patches);
  const modelType = variantOf(asked);
  const placed = modelType === undefined ? undefined : block(modelType);
  await draw(image, cut, asked, placed?.tiles);
  const tiles = tags.map((tag, i) => ({ tile: i + 1, ...tag, ...placed?.tiles[i] }));
  const { file, picture, options } = asked;
  return {
    file,
    picture,
    tileSize: options.tileSize,
    maxTiles: options.maxTiles,
    choice,
    tokenizer,
    sizes: Object.values(VARIANTS).flatMap((type) => {
      const sized = block(type);
      const { tokens = 0, streamRows = 0 } = sized ?? {};
      return sized === undefined ? [] : [{ modelType: type, decoderTokens: tokens, streamRows }];
    }),
    ...(modelType !== undefined && {
      placement: { modelType, ...(await sightOf(modelType, placed)), tiles },
    }),
  };
}
