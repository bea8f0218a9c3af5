/**
 * NVLM-D (decoder only): tiles go through the vision encoder and the projector; their rows stand in the text, and one
 * causal decoder attends to both.
 */
import type { ModelConfig } from "../config.js";
import type { ImageLayout, RankProgram } from "../program.js";
import { decoderPrograms } from "./decoder.js";
import type { Cut } from "./pieces.js";
import { assemble, checkCut } from "./rank.js";
import { visionProgram } from "./vision.js";

export const nvlmDImages: ImageLayout = { tags: "all", rowsInText: true };

export function nvlmD(config: ModelConfig, cut: Cut): RankProgram {
  checkCut(config, cut);
  const encode = visionProgram(config, cut);
  return assemble(config, cut, { encode, ...decoderPrograms(config, cut, { tags: false }) });
}
