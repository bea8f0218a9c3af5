/** config.json as a type that cannot be wrong. Unknown values of keys that matter are refused by name. */
import { parseCross, type CrossConfig } from "./cross-config.js";
import { Keys } from "./keys.js";

export interface DecoderConfig {
  hiddenSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediateSize: number;
  vocabularySize: number;
  rmsNormEps: number;
  ropeTheta: number;
  maxPositionEmbeddings: number;
  eosTokenIds: number[];
}

export interface VisionConfig {
  hiddenSize: number;
  layers: number;
  /** Real heads; `storedHeads` counts the dummy heads behind them. */
  heads: number;
  storedHeads: number;
  headDim: number;
  intermediateSize: number;
  imageSize: number;
  patchSize: number;
  eps: number;
}

export const MODEL_TYPES = ["NVLM_D", "NVLM_X", "NVLM_H"] as const;
export type ModelType = (typeof MODEL_TYPES)[number];

export interface ModelConfig {
  modelType: ModelType;
  decoder: DecoderConfig;
  vision: VisionConfig;
  pixelShuffle: "v1" | "v2";
  /** LayerNorm, linear, GELU, linear; or LayerNorm, linear. */
  projector: "mlp" | "linear";
  /** Gated cross-attention to the images' streams; absent in D. */
  cross: CrossConfig | undefined;
  /** `rows`: image embeddings of one tile. */
  tile: { size: number; maxTiles: number; useThumbnail: boolean; rows: number };
}

const MAX_LAYERS = 1024;
const MAX_HEAD_DIM = 256;

/** Of each variant. */
export const PROJECTORS = { NVLM_D: "mlp", NVLM_X: "linear", NVLM_H: "mlp" } as const;
/** Dummy heads behind the real ones in NVLM's vision attention tensors. */
export const DUMMY_HEADS = 7;
/** LayerNorm of the projector: PyTorch's default. */
export const PROJECTOR_EPS = 1e-5;

function parseHeadDim(keys: Keys, headDim: number): number {
  const must = `must leave heads of a multiple of 16 up to ${MAX_HEAD_DIM}, not ${headDim}`;
  if (headDim % 16 !== 0 || headDim > MAX_HEAD_DIM) keys.wrong("num_attention_heads", must);
  return headDim;
}

/** `rope_scaling` is ignored, as in the reference; attention is always full. */
function parseDecoder(keys: Keys): DecoderConfig {
  const architectures = keys.raw("architectures");
  if (!Array.isArray(architectures) || architectures[0] !== "Qwen2ForCausalLM")
    keys.wrong("architectures", 'must be ["Qwen2ForCausalLM"]');
  keys.oneOf("hidden_act", ["silu"], "silu");
  keys.oneOf("tie_word_embeddings", [false], false);
  keys.oneOf("use_sliding_window", [false], false);
  const hiddenSize = keys.whole("hidden_size");
  const heads = keys.whole("num_attention_heads");
  const kvHeads = keys.whole("num_key_value_heads");
  if (hiddenSize % heads !== 0) keys.wrong("num_attention_heads", `must divide ${hiddenSize}`);
  if (heads % kvHeads !== 0) keys.wrong("num_key_value_heads", `must divide ${heads}`);
  const headDim = parseHeadDim(keys, hiddenSize / heads);
  const eos = keys.raw("eos_token_id");
  return {
    hiddenSize,
    layers: keys.whole("num_hidden_layers", undefined, MAX_LAYERS),
    heads,
    kvHeads,
    headDim,
    intermediateSize: keys.whole("intermediate_size"),
    vocabularySize: keys.whole("vocab_size"),
    rmsNormEps: keys.number("rms_norm_eps"),
    ropeTheta: keys.number("rope_theta", 10000),
    maxPositionEmbeddings: keys.whole("max_position_embeddings"),
    eosTokenIds: parseTokenIds(eos),
  };
}

/** One id, a list of ids, or nothing. */
export function parseTokenIds(value: unknown): number[] {
  const list = Array.isArray(value) ? value : value === undefined || value === null ? [] : [value];
  return list.filter((id): id is number => Number.isSafeInteger(id) && id >= 0);
}

function parseVision(keys: Keys): VisionConfig {
  keys.oneOf("norm_type", ["rms_norm"], "rms_norm");
  keys.oneOf("hidden_act", ["gelu"], "gelu");
  keys.oneOf("qk_normalization", [true]);
  keys.oneOf("qkv_bias", [false], false);
  const hiddenSize = keys.whole("hidden_size");
  const heads = keys.whole("num_attention_heads");
  const headDim = parseHeadDim(keys, hiddenSize / heads);
  return {
    hiddenSize,
    layers: keys.whole("num_hidden_layers", undefined, MAX_LAYERS),
    heads,
    storedHeads: heads + DUMMY_HEADS,
    headDim,
    intermediateSize: keys.whole("intermediate_size"),
    imageSize: keys.whole("image_size"),
    patchSize: keys.whole("patch_size"),
    eps: keys.number("layer_norm_eps"),
  };
}

/** @throws ModelError BAD_MODEL naming the key, the value and what it must be. */
export function parseConfig(json: unknown): ModelConfig {
  const keys = Keys.of(json, "");
  const modelType = keys.oneOf("model_type", MODEL_TYPES);
  if (Number(keys.number("downsample_ratio", 0.5)) !== 0.5)
    keys.wrong("downsample_ratio", "must be 0.5");
  if ((keys.raw("select_layer") ?? -1) !== -1) keys.wrong("select_layer", "must be -1");
  const vision = parseVision(keys.object("vision_config"));
  const size = keys.whole("force_image_size", vision.imageSize);
  if (size !== vision.imageSize)
    keys.wrong("force_image_size", `must be vision_config.image_size (${vision.imageSize})`);
  const grid = size / vision.patchSize;
  if (!Number.isSafeInteger(grid) || grid % 2 !== 0)
    keys.wrong("force_image_size", `must be an even number of patches of ${vision.patchSize}`);
  const decoder = parseDecoder(keys.object("llm_config"));
  return {
    modelType,
    decoder,
    vision,
    projector: keys.oneOf("projector", [PROJECTORS[modelType]], PROJECTORS[modelType]),
    cross:
      modelType === "NVLM_D"
        ? undefined
        : parseCross(keys.objectOr("cross_attention_config", {}), decoder),
    pixelShuffle: keys.oneOf("ps_version", ["v1", "v2"] as const, "v1"),
    tile: {
      size,
      maxTiles: keys.whole("max_dynamic_patch", 6),
      useThumbnail: keys.oneOf("use_thumbnail", [true, false], false),
      rows: (grid / 2) ** 2,
    },
  };
}
