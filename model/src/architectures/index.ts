/** The variants by model_type; another architecture is one more line. */
import type { ModelConfig, ModelType } from "../config.js";
import type { RankProgram } from "../program.js";
import { nvlmD } from "./nvlm-d.js";
import { nvlmH } from "./nvlm-h.js";
import { nvlmX } from "./nvlm-x.js";
import type { Cut } from "./pieces.js";

const ARCHITECTURES: Record<ModelType, (config: ModelConfig, cut: Cut) => RankProgram> = {
  NVLM_D: nvlmD,
  NVLM_X: nvlmX,
  NVLM_H: nvlmH,
};

/** @throws ModelError when `cut.size` does not fit the model's lanes. */
export function rankProgram(config: ModelConfig, cut: Cut): RankProgram {
  return ARCHITECTURES[config.modelType](config, cut);
}
