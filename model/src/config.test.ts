import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseConfig, parseTokenIds } from "./config.js";

type Json = Record<string, unknown>;
const path = new URL("../../test/fixtures/nvlm-d-72b/config.json", import.meta.url);
const real = JSON.parse(await readFile(fileURLToPath(path), "utf8")) as Json;

test("the config of NVLM-D-72B has the numbers of the specification", () => {
  const { decoder, vision, tile, pixelShuffle } = parseConfig(real);
  assert.deepEqual(decoder, {
    hiddenSize: 8192,
    layers: 80,
    heads: 64,
    kvHeads: 8,
    headDim: 128,
    intermediateSize: 29568,
    vocabularySize: 152064,
    rmsNormEps: 1e-6,
    ropeTheta: 1_000_000,
    maxPositionEmbeddings: 32768,
    eosTokenIds: [151645],
  });
  assert.deepEqual(vision, {
    hiddenSize: 3200,
    layers: 45,
    heads: 25,
    storedHeads: 32,
    headDim: 128,
    intermediateSize: 12800,
    imageSize: 448,
    patchSize: 14,
    eps: 1e-6,
  });
  assert.deepEqual(tile, { size: 448, maxTiles: 6, useThumbnail: true, rows: 256 });
  assert.equal(pixelShuffle, "v2");
});

/** A copy with one key set; a dot leads into an object; undefined takes the key away. */
function changed(key: string, value: unknown): Json {
  const copy = structuredClone(real);
  const [outer = "", inner] = key.split(".");
  const target = inner === undefined ? copy : (copy[outer] as Json);
  target[inner ?? outer] = value;
  return copy;
}

const refused: [string, unknown, RegExp][] = [
  ["model_type", "llama", /model_type is "llama", must be NVLM_D or NVLM_X or NVLM_H/],
  ["model_type", undefined, /model_type is missing, must be NVLM_D or NVLM_X or NVLM_H/],
  ["projector", "linear", /projector is "linear", must be mlp/],
  ["downsample_ratio", 0.25, /downsample_ratio is 0.25, must be 0.5/],
  ["select_layer", -2, /select_layer is -2, must be -1/],
  ["ps_version", "v3", /ps_version is "v3", must be v1 or v2/],
  ["use_thumbnail", "yes", /use_thumbnail is "yes", must be true or false/],
  ["max_dynamic_patch", 0, /max_dynamic_patch is 0, must be a number above 0/],
  ["force_image_size", 336, /force_image_size is 336, must be vision_config.image_size \(448\)/],
  ["llm_config", undefined, /llm_config must be an object/],
  ["llm_config", [], /llm_config must be an object/],
  ["vision_config", "none", /vision_config must be an object/],
  ["llm_config.architectures", ["LlamaForCausalLM"], /llm_config.architectures is .*Qwen2/],
  ["llm_config.architectures", undefined, /llm_config.architectures is missing/],
  ["llm_config.hidden_act", "gelu", /llm_config.hidden_act is "gelu", must be silu/],
  ["llm_config.tie_word_embeddings", true, /tie_word_embeddings is true, must be false/],
  ["llm_config.hidden_size", -8192, /llm_config.hidden_size is -8192, must be a number above 0/],
  ["llm_config.hidden_size", 8192.5, /llm_config.hidden_size is 8192.5, must be a whole number/],
  ["llm_config.hidden_size", "8192", /llm_config.hidden_size is "8192", must be a number/],
  ["llm_config.hidden_size", null, /llm_config.hidden_size is null, must be a number/],
  ["llm_config.num_attention_heads", 60, /num_attention_heads is 60, must divide 8192/],
  ["llm_config.num_attention_heads", 1024, /must leave heads of a multiple of 16 up to 256, not 8/],
  ["llm_config.num_attention_heads", 16, /must leave heads of a multiple of 16 up to 256, not 512/],
  ["llm_config.num_key_value_heads", 7, /num_key_value_heads is 7, must divide 64/],
  ["llm_config.num_hidden_layers", 0, /num_hidden_layers is 0, must be a number above 0/],
  ["llm_config.rms_norm_eps", undefined, /llm_config.rms_norm_eps is missing/],
  ["llm_config.rope_theta", 0, /llm_config.rope_theta is 0, must be a number above 0/],
  ["llm_config.max_position_embeddings", 1e9, /max_position_embeddings is 1000000000, limit/],
  ["llm_config.num_hidden_layers", 1e9, /num_hidden_layers is 1000000000, limit/],
  ["llm_config.vocab_size", 2 ** 40, /vocab_size is 1099511627776, limit/],
  ["llm_config.use_sliding_window", true, /use_sliding_window is true, must be false/],
  ["vision_config.norm_type", "layer_norm", /vision_config.norm_type is "layer_norm"/],
  ["vision_config.hidden_act", "relu", /vision_config.hidden_act is "relu", must be gelu/],
  ["vision_config.qk_normalization", false, /qk_normalization is false, must be true/],
  ["vision_config.qkv_bias", true, /vision_config.qkv_bias is true, must be false/],
  ["vision_config.num_attention_heads", 24, /must leave heads of a multiple of 16/],
  ["vision_config.patch_size", 15, /force_image_size is 448, must be an even number of patches/],
];
for (const [key, value, message] of refused)
  test(`parseConfig: ${key} ${JSON.stringify(value) ?? "missing"} is refused by name`, () => {
    assert.throws(() => parseConfig(changed(key, value)), { code: "BAD_MODEL", message });
  });

for (const value of [null, [], 1, "x", undefined])
  test(`parseConfig: ${JSON.stringify(value) ?? "nothing"} instead of an object is refused`, () => {
    const message = /config.json: the file must be an object/;
    assert.throws(() => parseConfig(value), { code: "BAD_MODEL", message });
  });

test("parseConfig: rope_scaling is ignored, as by the reference", () => {
  assert.deepEqual(parseConfig(changed("llm_config.rope_scaling", null)), parseConfig(real));
});

test("parseTokenIds: one id, a list, or nothing", () => {
  assert.deepEqual(parseTokenIds(7), [7]);
  assert.deepEqual(parseTokenIds([7, 8]), [7, 8]);
  assert.deepEqual(parseTokenIds(undefined), []);
  assert.deepEqual(parseTokenIds(null), []);
});
