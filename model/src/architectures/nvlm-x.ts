/**
 * NVLM-X (cross-attention): tiles go through the vision encoder and a linear projector into the images' streams; the
 * text has their tags but no image rows, and gated cross-attention in some decoder layers reads the streams.
 */
import type { ModelConfig } from "../config.js";
import type { ImageLayout, RankProgram } from "../program.js";
import { decoderPrograms } from "./decoder.js";
import type { Cut } from "./pieces.js";
import { assemble, checkCut } from "./rank.js";
import { visionProgram } from "./vision.js";

export const nvlmXImages: ImageLayout = {
  tags: "all",
  rowsInText: false,
  stream: { tiles: "all", tagged: false, ownTileAtTags: true },
};

export function nvlmX(config: ModelConfig, cut: Cut): RankProgram {
  checkCut(config, cut);
  const encode = visionProgram(config, cut);
  return assemble(config, cut, { encode, ...decoderPrograms(config, cut, { tags: false }) });
}
