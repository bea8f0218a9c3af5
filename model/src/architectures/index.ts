/** The variants by model_type; another architecture is one more line. */
import type { ModelConfig, ModelType } from "../config.js";
import type { ImageLayout, RankProgram } from "../program.js";
import { nvlmD, nvlmDImages } from "./nvlm-d.js";
import { nvlmH, nvlmHImages } from "./nvlm-h.js";
import { nvlmX, nvlmXImages } from "./nvlm-x.js";
import type { Cut } from "./pieces.js";

interface Architecture {
  program: (config: ModelConfig, cut: Cut) => RankProgram;
  images: ImageLayout;
}

const ARCHITECTURES: Record<ModelType, Architecture> = {
  NVLM_D: { program: nvlmD, images: nvlmDImages },
  NVLM_X: { program: nvlmX, images: nvlmXImages },
  NVLM_H: { program: nvlmH, images: nvlmHImages },
};

/** @throws ModelError when `cut.size` does not fit the model's lanes. */
export function rankProgram(config: ModelConfig, cut: Cut): RankProgram {
  return ARCHITECTURES[config.modelType].program(config, cut);
}

export function imageLayout({ modelType }: Pick<ModelConfig, "modelType">): ImageLayout {
  return ARCHITECTURES[modelType].images;
}
