/**
 * NVLM-H (hybrid): the thumbnail's rows stand in the text as in D; the regular tiles, each behind the embeddings of its
 * tag, are the images' streams, which gated cross-attention in some decoder layers reads.
 */
import type { ModelConfig } from "../config.js";
import type { ImageLayout, RankProgram } from "../program.js";
import { decoderPrograms } from "./decoder.js";
import type { Cut } from "./pieces.js";
import { assemble, checkCut } from "./rank.js";
import { visionProgram } from "./vision.js";

export const nvlmHImages: ImageLayout = {
  tags: "thumbnail",
  rowsInText: true,
  stream: { tiles: "regular", tagged: true, ownTileAtTags: false },
};

export function nvlmH(config: ModelConfig, cut: Cut): RankProgram {
  checkCut(config, cut);
  const encode = visionProgram(config, cut);
  return assemble(config, cut, { encode, ...decoderPrograms(config, cut, { tags: true }) });
}
