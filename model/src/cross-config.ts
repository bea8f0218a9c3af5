/** `cross_attention_config` of NVLM-X and NVLM-H (spec 14); every choice the paper leaves open is a key. */
import type { DecoderConfig } from "./config.js";
import type { Keys } from "./keys.js";

export interface CrossConfig {
  /** Decoder layers with a gated cross-attention between self-attention and feed-forward, rising. */
  layers: number[];
  heads: number;
  kvHeads: number;
  headDim: number;
  eps: number;
  kvNorm: boolean;
  qkNorm: boolean;
  bias: boolean;
  gate: "tanh" | "none";
}

const KNOWN = [
  "layers",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "norm_eps",
  "kv_norm",
  "qk_norm",
  "attention_bias",
  "gate",
  "position_embedding",
  "ffn",
] as const;
const EVERY = 8;
const MAX_HEAD_DIM = 256;

function parseLayers(keys: Keys, decoder: DecoderConfig): number[] {
  const every = Array.from({ length: Math.floor(decoder.layers / EVERY) }, (_, i) => EVERY * i + 7);
  const layers = keys.has("layers") ? keys.raw("layers") : every;
  const rising =
    Array.isArray(layers) &&
    layers.every((n, i) => Number.isSafeInteger(n) && n >= 0 && (i === 0 || n > layers[i - 1]));
  if (!rising || layers.length === 0) keys.wrong("layers", "must be a rising list of layers");
  const last = layers.at(-1) as number;
  if (last >= decoder.layers)
    keys.wrong("layers", `must lie below num_hidden_layers (${decoder.layers})`);
  return layers as number[];
}

/** @throws ModelError BAD_MODEL naming the key, the value and what it must be. */
export function parseCross(keys: Keys, decoder: DecoderConfig): CrossConfig {
  keys.only(KNOWN);
  keys.oneOf("position_embedding", ["none"], "none");
  keys.oneOf("ffn", [false], false);
  const heads = keys.whole("num_attention_heads", decoder.heads);
  const kvHeads = keys.whole("num_key_value_heads", decoder.kvHeads);
  if (heads % kvHeads !== 0) keys.wrong("num_key_value_heads", `must divide ${heads}`);
  const headDim = keys.whole("head_dim", decoder.headDim);
  if (headDim % 16 !== 0 || headDim > MAX_HEAD_DIM)
    keys.wrong("head_dim", `must be a multiple of 16 up to ${MAX_HEAD_DIM}`);
  return {
    layers: parseLayers(keys, decoder),
    heads,
    kvHeads,
    headDim,
    eps: keys.number("norm_eps", decoder.rmsNormEps),
    kvNorm: keys.oneOf("kv_norm", [true, false], true),
    qkNorm: keys.oneOf("qk_norm", [true, false], false),
    bias: keys.oneOf("attention_bias", [true, false], false),
    gate: keys.oneOf("gate", ["tanh", "none"] as const, "tanh"),
  };
}
