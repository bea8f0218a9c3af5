/**
 * NVLM-D (decoder only): tiles go through the vision encoder and the projector; their rows stand in the text, and one
 * causal decoder attends to both.
 */
import type { ModelConfig } from "../config.js";
import { headStarts, laneCount, rankRange, checkTensorParallelSize } from "../lanes.js";
import type { RankProgram } from "../program.js";
import { decoderProgram, type Cut } from "./decoder.js";
import { visionProgram } from "./vision.js";

/** @throws ModelError when `cut.size` does not fit the model's lanes. */
export function rankProgram(config: ModelConfig, cut: Cut): RankProgram {
  checkTensorParallelSize(config, cut.size);
  const { decoder, tile } = config;
  const kv = rankRange(headStarts(decoder.kvHeads, laneCount(decoder.kvHeads)), cut);
  return {
    ...cut,
    encode: visionProgram(config),
    step: decoderProgram(config, cut),
    cache: { layers: decoder.layers, kvHeads: kv.count, headDim: decoder.headDim },
    embedding: { rows: tile.rows, width: decoder.hiddenSize },
    tile: { size: tile.size },
    vocabulary: decoder.vocabularySize,
  };
}
