/** The same decoder and vision encoder as another variant. */
import { PROJECTORS, type DecoderConfig, type ModelConfig, type ModelType } from "./config.js";
import { parseCross, type CrossConfig } from "./cross-config.js";
import { Keys } from "./keys.js";

/** From here on the paper's every 8th layer is the default. */
const EVERY_8TH_FROM = 8;

/** Small decoders get every second layer, as the bundled tiny X and H have. */
function defaultCross(decoder: DecoderConfig): CrossConfig {
  const second = Array.from({ length: Math.floor(decoder.layers / 2) }, (_, i) => 2 * i + 1);
  const layers = second.length > 0 ? second : [0];
  const keys = decoder.layers >= EVERY_8TH_FROM ? {} : { layers };
  return parseCross(Keys.of(keys, "cross_attention_config"), decoder);
}

/**
 * `config` as variant `modelType`: that variant's projector; for X and H the cross-attention that `config` has, else the
 * defaults of `cross_attention_config`, which for a decoder of fewer than 8 layers are layers 1, 3, …
 */
export function siblingConfig(config: ModelConfig, modelType: ModelType): ModelConfig {
  if (modelType === config.modelType) return config;
  const cross = modelType === "NVLM_D" ? undefined : (config.cross ?? defaultCross(config.decoder));
  return { ...config, modelType, projector: PROJECTORS[modelType], cross };
}
