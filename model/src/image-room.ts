/** Room for images on each rank: tiles' embeddings, and keys and values of their streams for cross-attention. */
import { rankProgram } from "./architectures/index.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { BLOCK_TOKENS, cacheRowBytes, type KvType } from "./estimate.js";

/** Of embeddings, when nothing else is said. */
const EMBEDDING_BYTES = 512 << 20;
const MAX_EMBEDDINGS = 256;
/** Of one image, the thumbnail not counted. */
export const MAX_IMAGE_TILES = 12;
const MAX_TAG_IDS = 16;
/** Images of the largest size whose keys and values are held. */
const CROSS_IMAGES = 16;

export interface CrossCacheOptions {
  size: number;
  kvType: KvType;
  crossCacheBytes?: number | undefined;
}

/** @throws ModelError INVALID_ARGUMENT when not even one image of the largest size fits. */
export function chooseCrossBlocks(config: ModelConfig, options: CrossCacheOptions): number {
  const { crossCacheBytes: given, size, kvType } = options;
  if (config.cross === undefined) {
    if (given === undefined) return 0;
    throw new ModelError(
      "INVALID_ARGUMENT",
      `cross-cache-memory: ${given} bytes, but ${config.modelType} has no cross-attention`,
    );
  }
  const least = Math.ceil(streamRows(config) / BLOCK_TOKENS);
  if (given === undefined) return CROSS_IMAGES * least;
  checkBytes("cross-cache-memory", given);
  const { crossCache } = rankProgram(config, { rank: 0, size });
  const each = BLOCK_TOKENS * cacheRowBytes(crossCache, kvType);
  const count = Math.floor(given / each);
  if (count >= least) return count;
  throw new ModelError(
    "INVALID_ARGUMENT",
    `cross-cache-memory of ${given} bytes holds ${count} blocks, the largest image has ${least}: ` +
      `needs ${least * each}`,
  );
}

export function checkBytes(name: string, bytes: number | undefined): void {
  if (bytes === undefined || (Number.isFinite(bytes) && bytes > 0)) return;
  throw new ModelError("INVALID_ARGUMENT", `${name}: ${bytes} bytes, must be above 0`);
}

/** Of one tile. */
export function embeddingBytes({ tile, decoder }: ModelConfig): number {
  return 4 * tile.rows * decoder.hiddenSize;
}

/** @throws ModelError INVALID_ARGUMENT when not even the tiles of one image fit. */
export function chooseEmbeddings(config: ModelConfig, given: number | undefined): number {
  const each = embeddingBytes(config);
  const least = config.tile.maxTiles + 1;
  if (given === undefined)
    return Math.max(least, Math.min(MAX_EMBEDDINGS, Math.floor(EMBEDDING_BYTES / each)));
  checkBytes("embedding-memory", given);
  const count = Math.floor(given / each);
  if (count >= least) return count;
  throw new ModelError(
    "INVALID_ARGUMENT",
    `embedding-memory of ${given} bytes holds ${count} tiles, one image can have ${least}: needs ${least * each}`,
  );
}

/** Rows of the largest image's stream: 12 tiles and the thumbnail, tags of at most 16 ids. */
export function streamRows({ cross, tile }: ModelConfig): number {
  return cross === undefined ? 0 : (MAX_IMAGE_TILES + 1) * (tile.rows + MAX_TAG_IDS);
}
