/** The part of `tessera plan` that sets D, X and H side by side for one image. */
import { InvalidArgumentError } from "commander";
import type { ModelConfig, ModelFolder, PlacementPlan, VariantCost } from "@tessera/model";
import { openTokenizer } from "./model-tokenizer.js";
import { bytesText, columns, flopsText } from "./text-table.js";

export interface ImagePlan {
  width: number;
  height: number;
  grid: [number, number];
  /** Tiles, the thumbnail counted. */
  patches: number;
  /** Whose token counts are used. */
  tokenizer: "model" | "public";
  variants: VariantCost[];
}

/** Parses `<width>x<height>`; limits are `compareImage`'s. */
export function imageSize(text: string): { width: number; height: number } {
  const [width = 0, height = 0] = (/^(\d{1,9})x(\d{1,9})$/.exec(text) ?? []).slice(1).map(Number);
  if (width < 1 || height < 1)
    throw new InvalidArgumentError("must be <width>x<height>, each 1 pixel or more.");
  return { width, height };
}

/** @throws Error when no request could have such a picture. */
export async function compareImage(
  model: ModelFolder,
  plan: PlacementPlan,
  image: { width: number; height: number; maxTiles: number },
): Promise<ImagePlan> {
  const { compareVariants } = await import("@tessera/model");
  const coordinator = await import("@tessera/coordinator/request");
  const { chooseGrid, IMAGE_LIMITS, imageText, patchCount, sizeProblem } = coordinator;
  const { width, height, maxTiles } = image;
  const problem = sizeProblem(image, IMAGE_LIMITS);
  if (problem !== undefined) throw new Error(`--image: ${problem}`);
  const { size: tileSize, useThumbnail } = model.config.tile;
  const grid = chooseGrid(image, { tileSize, maxTiles, useThumbnail });
  const patches = patchCount(grid, useThumbnail);
  const tokenizer = await openTokenizer(model.dir);
  const { size, kvType, weightType, maxBatchedTokens } = plan;
  const text = imageText(patches, tokenizer);
  return {
    width,
    height,
    grid: [grid.columns, grid.rows],
    patches,
    tokenizer: tokenizer === undefined ? "public" : "model",
    variants: compareVariants(model.config, {
      size,
      kvType,
      weightType,
      maxBatchedTokens,
      text,
    }),
  };
}

/** Layers in ranges of an even step: `7, 15, … 79`. */
function layersText(layers: number[]): string {
  const [first = 0, second = first] = layers;
  const even = layers.every((layer, i) => layer === first + i * (second - first));
  return even && layers.length > 3 ? `${first}, ${second}, … ${layers.at(-1)}` : layers.join(", ");
}

function crossText(config: ModelConfig, variants: VariantCost[]): string {
  const layers = variants.find(({ crossLayers }) => crossLayers.length > 0)?.crossLayers ?? [];
  const whose =
    config.cross === undefined ? "the defaults of cross_attention_config" : "as this model has it";
  return (
    `X and H: cross-attention in ${layers.length} of ${config.decoder.layers} decoder layers ` +
    `(${layersText(layers)}), ${whose}`
  );
}

function rowsOf({
  size,
  kvType,
  weightType,
}: PlacementPlan): [string, (cost: VariantCost) => string][] {
  const ranks = size === 1 ? "1 rank" : `${size} ranks`;
  return [
    ["tokens in the decoder", (cost) => String(cost.decoderTokens)],
    ["rows in the cross-attention stream", (cost) => String(cost.streamRows)],
    [`cache of the tokens, ${kvType}`, (cost) => bytesText(cost.cacheBytes)],
    [`cache of the stream, ${kvType}`, (cost) => bytesText(cost.crossCacheBytes)],
    [`exchange to prefill, ${ranks}`, (cost) => bytesText(cost.exchangeBytes)],
    ["to encode the tiles", (cost) => flopsText(cost.encodeFlops)],
    ["to prefill", (cost) => flopsText(cost.prefillFlops)],
    [`weights, ${weightType}, held once`, (cost) => bytesText(cost.weightBytes)],
  ];
}

export function imagePlanText(
  config: ModelConfig,
  plan: PlacementPlan,
  image: ImagePlan,
): string[] {
  const { width, height, grid, patches, tokenizer, variants } = image;
  const whose = tokenizer === "model" ? "the model's" : "the public";
  const tiles = grid[0] * grid[1];
  const more = patches > tiles ? " and the thumbnail" : "";
  const names = variants.map(({ modelType }) =>
    modelType === config.modelType ? `${modelType} (this)` : modelType,
  );
  const rows = rowsOf(plan).map(([label, text]) => [label, ...variants.map(text)]);
  return [
    `one image of ${width} × ${height} pixels: ${grid[0]} × ${grid[1]} tiles${more}, ` +
      `${patches} × ${config.tile.rows} rows; tokens by ${whose} tokenizer`,
    ...columns([["", ...names], ...rows], [1, 2, 3]),
    crossText(config, variants),
  ];
}
