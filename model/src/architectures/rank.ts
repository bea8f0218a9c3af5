/** What all variants have in common: their programs for one rank. */
import type { ModelConfig } from "../config.js";
import { ModelError } from "../errors.js";
import { checkTensorParallelSize, headStarts, laneCount, rankRange } from "../lanes.js";
import type { CacheShape, RankProgram } from "../program.js";
import type { DecoderPrograms } from "./decoder.js";
import type { Cut } from "./pieces.js";
import type { Program } from "../program.js";

const NO_CACHE: CacheShape = { layers: 0, kvHeads: 0, headDim: 0 };

function cacheOf(
  heads: { kvHeads: number; headDim: number },
  layers: number,
  cut: Cut,
): CacheShape {
  if (cut.rank >= cut.size) return NO_CACHE;
  const kv = rankRange(headStarts(heads.kvHeads, laneCount(heads.kvHeads)), cut);
  return { layers, kvHeads: kv.count, headDim: heads.headDim };
}

/** @throws ModelError when `cut.size` does not fit the model's lanes. */
export function checkCut(config: ModelConfig, cut: Cut): void {
  checkTensorParallelSize(config, cut.size);
  if (cut.rank >= cut.size && cut.vision !== "workers")
    throw new ModelError("INVALID_ARGUMENT", `rank ${cut.rank}: the group has ${cut.size}`);
  if (config.cross !== undefined) checkTensorParallelSize({ decoder: config.cross }, cut.size);
}

export function assemble(
  config: ModelConfig,
  cut: Cut,
  parts: DecoderPrograms & { encode: Program },
): RankProgram {
  const { decoder, cross, tile } = config;
  return {
    rank: cut.rank,
    size: cut.size,
    ...parts,
    cache: cacheOf(decoder, decoder.layers, cut),
    crossCache: cross === undefined ? NO_CACHE : cacheOf(cross, cross.layers.length, cut),
    embedding: { rows: tile.rows, width: decoder.hiddenSize },
    tile: { size: tile.size },
    vocabulary: decoder.vocabularySize,
  };
}
