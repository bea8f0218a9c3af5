/** The stored tensors a model must have, and their shapes: what the safetensors files are checked against. */
import type { ModelConfig } from "./config.js";

/** Tensor name → shape. */
export type TensorShapes = Map<string, number[]>;

function visionLayer(shapes: TensorShapes, config: ModelConfig, layer: number): void {
  const { hiddenSize: d, storedHeads, headDim, intermediateSize: inner } = config.vision;
  const name = `vision_model.encoder.layers.${layer}`;
  const stored = storedHeads * headDim;
  shapes.set(`${name}.attn.qkv.weight`, [3 * stored, d]);
  shapes.set(`${name}.attn.q_norm.weight`, [stored]);
  shapes.set(`${name}.attn.k_norm.weight`, [stored]);
  shapes.set(`${name}.attn.proj.weight`, [d, stored]);
  for (const part of [
    "attn.proj.bias",
    "ls1",
    "ls2",
    "norm1.weight",
    "norm2.weight",
    "mlp.fc2.bias",
  ])
    shapes.set(`${name}.${part}`, [d]);
  shapes.set(`${name}.mlp.fc1.weight`, [inner, d]);
  shapes.set(`${name}.mlp.fc1.bias`, [inner]);
  shapes.set(`${name}.mlp.fc2.weight`, [d, inner]);
}

function decoderLayer(shapes: TensorShapes, config: ModelConfig, layer: number): void {
  const { hiddenSize: d, heads, kvHeads, headDim, intermediateSize: inner } = config.decoder;
  const name = `language_model.model.layers.${layer}`;
  for (const [part, count] of [
    ["q_proj", heads],
    ["k_proj", kvHeads],
    ["v_proj", kvHeads],
  ] as const) {
    shapes.set(`${name}.self_attn.${part}.weight`, [count * headDim, d]);
    shapes.set(`${name}.self_attn.${part}.bias`, [count * headDim]);
  }
  shapes.set(`${name}.self_attn.o_proj.weight`, [d, heads * headDim]);
  shapes.set(`${name}.mlp.gate_proj.weight`, [inner, d]);
  shapes.set(`${name}.mlp.up_proj.weight`, [inner, d]);
  shapes.set(`${name}.mlp.down_proj.weight`, [d, inner]);
  for (const part of ["input_layernorm", "post_attention_layernorm"])
    shapes.set(`${name}.${part}.weight`, [d]);
}

function crossLayer(shapes: TensorShapes, config: ModelConfig, layer: number): void {
  const { cross, decoder } = config;
  if (cross === undefined) return;
  const { hiddenSize: d } = decoder;
  const { heads, kvHeads, headDim } = cross;
  const name = `language_model.model.layers.${layer}.cross_attn`;
  shapes.set(`${name}.norm.weight`, [d]);
  if (cross.kvNorm) shapes.set(`${name}.kv_norm.weight`, [d]);
  for (const [part, rows, cols] of [
    ["q_proj", heads * headDim, d],
    ["k_proj", kvHeads * headDim, d],
    ["v_proj", kvHeads * headDim, d],
    ["o_proj", d, heads * headDim],
  ] as const) {
    shapes.set(`${name}.${part}.weight`, [rows, cols]);
    if (cross.bias) shapes.set(`${name}.${part}.bias`, [rows]);
  }
  if (cross.qkNorm)
    for (const part of ["q_norm", "k_norm"]) shapes.set(`${name}.${part}.weight`, [headDim]);
  if (cross.gate === "tanh") shapes.set(`${name}.gate`, [1]);
}

export function tensorShapes(config: ModelConfig): TensorShapes {
  const shapes: TensorShapes = new Map();
  const { decoder, vision } = config;
  const [d, v] = [decoder.hiddenSize, vision.hiddenSize];
  const places = (vision.imageSize / vision.patchSize) ** 2 + 1;
  shapes.set("vision_model.embeddings.class_embedding", [1, 1, v]);
  shapes.set("vision_model.embeddings.patch_embedding.weight", [
    v,
    3,
    vision.patchSize,
    vision.patchSize,
  ]);
  shapes.set("vision_model.embeddings.patch_embedding.bias", [v]);
  shapes.set("vision_model.embeddings.position_embedding", [1, places, v]);
  for (let layer = 0; layer < vision.layers; layer++) visionLayer(shapes, config, layer);
  shapes.set("mlp1.0.weight", [4 * v]);
  shapes.set("mlp1.0.bias", [4 * v]);
  if (config.projector === "mlp") {
    shapes.set("mlp1.1.weight", [decoder.intermediateSize, 4 * v]);
    shapes.set("mlp1.3.weight", [d, decoder.intermediateSize]);
  } else {
    shapes.set("mlp1.1.weight", [d, 4 * v]);
  }
  shapes.set("language_model.model.embed_tokens.weight", [decoder.vocabularySize, d]);
  for (let layer = 0; layer < decoder.layers; layer++) decoderLayer(shapes, config, layer);
  for (const layer of config.cross?.layers ?? []) crossLayer(shapes, config, layer);
  shapes.set("language_model.model.norm.weight", [d]);
  shapes.set("language_model.lm_head.weight", [decoder.vocabularySize, d]);
  return shapes;
}
