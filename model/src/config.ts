/** config.json as a type that cannot be wrong. Unknown values of keys that matter are refused by name. */
import { ModelError } from "./errors.js";

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

export interface ModelConfig {
  modelType: string;
  decoder: DecoderConfig;
  vision: VisionConfig;
  pixelShuffle: "v1" | "v2";
  /** `rows`: image embeddings of one tile. */
  tile: { size: number; maxTiles: number; useThumbnail: boolean; rows: number };
}

/** Of any width or length; native code indexes with 32 bits. */
const MAX_SIZE = 2 ** 24;
const MAX_LAYERS = 1024;
const MAX_HEAD_DIM = 256;

/** Dummy heads behind the real ones in NVLM's vision attention tensors. */
export const DUMMY_HEADS = 7;
/** LayerNorm of the projector: PyTorch's default. */
export const PROJECTOR_EPS = 1e-5;

/** Reads keys of one object of config.json, collecting the path for messages. */
class Keys {
  constructor(
    private readonly value: Record<string, unknown>,
    private readonly path: string,
  ) {}
  static of(value: unknown, path: string): Keys {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new ModelError("BAD_MODEL", `config.json: ${path || "the file"} must be an object`);
    return new Keys(value as Record<string, unknown>, path);
  }
  object(key: string): Keys {
    return Keys.of(this.value[key], this.name(key));
  }
  has(key: string): boolean {
    return this.value[key] !== undefined && this.value[key] !== null;
  }
  raw(key: string): unknown {
    return this.value[key];
  }
  number(key: string, fallback?: number): number {
    const value = this.value[key] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0)
      this.wrong(key, "must be a number above 0");
    return value;
  }
  whole(key: string, fallback?: number, limit = MAX_SIZE): number {
    const value = this.number(key, fallback);
    if (!Number.isInteger(value)) this.wrong(key, "must be a whole number");
    if (value > limit) this.wrong(key, `limit ${limit}`);
    return value;
  }
  oneOf<T>(key: string, allowed: readonly T[], fallback?: T): T {
    const value = this.value[key] ?? fallback;
    if (!allowed.includes(value as T)) this.wrong(key, `must be ${allowed.join(" or ")}`);
    return value as T;
  }
  wrong(key: string, must: string): never {
    const value = JSON.stringify(this.value[key]) ?? "missing";
    throw new ModelError("BAD_MODEL", `config.json: ${this.name(key)} is ${value}, ${must}`);
  }
  private name(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }
}

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
  const modelType = keys.raw("model_type");
  if (modelType === "NVLM_X" || modelType === "NVLM_H")
    keys.wrong("model_type", "which this version does not serve yet; NVLM_D is served");
  if (modelType !== "NVLM_D") keys.wrong("model_type", "must be NVLM_D");
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
  return {
    modelType: "NVLM_D",
    decoder: parseDecoder(keys.object("llm_config")),
    vision,
    pixelShuffle: keys.oneOf("ps_version", ["v1", "v2"] as const, "v1"),
    tile: {
      size,
      maxTiles: keys.whole("max_dynamic_patch", 6),
      useThumbnail: keys.oneOf("use_thumbnail", [true, false], false),
      rows: (grid / 2) ** 2,
    },
  };
}
