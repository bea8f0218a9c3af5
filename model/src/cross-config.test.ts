import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseConfig } from "./config.js";
import { rankProgram } from "./architectures/index.js";
import { tensorShapes } from "./tensors.js";

type Json = Record<string, unknown>;
const path = new URL("../../test/fixtures/nvlm-d-72b/config.json", import.meta.url);
const d = JSON.parse(await readFile(fileURLToPath(path), "utf8")) as Json;

function cross(model_type: string, keys?: Json) {
  const config = keys === undefined ? {} : { cross_attention_config: keys };
  return parseConfig({ ...d, model_type, ...config });
}

test("defaults: every 8th of 80 layers, the decoder's heads, norms and gate as NVLM-X and H say", () => {
  for (const type of ["NVLM_X", "NVLM_H"])
    assert.deepEqual(cross(type).cross, {
      layers: [7, 15, 23, 31, 39, 47, 55, 63, 71, 79],
      heads: 64,
      kvHeads: 8,
      headDim: 128,
      eps: 1e-6,
      kvNorm: true,
      qkNorm: false,
      bias: false,
      gate: "tanh",
    });
  assert.deepEqual([cross("NVLM_X").projector, cross("NVLM_H").projector], ["linear", "mlp"]);
  assert.equal(cross("NVLM_D").cross, undefined);
});

test("every key is honoured", () => {
  const keys = {
    layers: [0, 2],
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 32,
    norm_eps: 1e-5,
    kv_norm: false,
    qk_norm: true,
    attention_bias: true,
    gate: "none",
    position_embedding: "none",
    ffn: false,
  };
  const config = cross("NVLM_X", keys);
  assert.deepEqual(config.cross, {
    layers: [0, 2],
    heads: 8,
    kvHeads: 4,
    headDim: 32,
    eps: 1e-5,
    kvNorm: false,
    qkNorm: true,
    bias: true,
    gate: "none",
  });
  const shapes = tensorShapes(config);
  const name = "language_model.model.layers.2.cross_attn";
  const own = [...shapes.keys()].filter((key) => key.startsWith(name)).sort();
  const linears = ["q_proj", "k_proj", "v_proj", "o_proj"];
  const wanted = [...linears.flatMap((part) => [`${part}.weight`, `${part}.bias`])];
  wanted.push("norm.weight", "q_norm.weight", "k_norm.weight");
  assert.deepEqual(own, wanted.map((part) => `${name}.${part}`).sort());
  assert.deepEqual(shapes.get(`${name}.k_proj.weight`), [128, 8192]);
  assert.deepEqual(shapes.get(`${name}.o_proj.weight`), [8192, 256]);
});

const refused: [Json, RegExp][] = [
  [{ ffn: true }, /cross_attention_config.ffn is true, must be false/],
  [{ position_embedding: "rope" }, /position_embedding is "rope", must be none/],
  [{ gate: "sigmoid" }, /gate is "sigmoid", must be tanh or none/],
  [{ layers: [80] }, /layers is \[80\], must lie below num_hidden_layers \(80\)/],
  [{ layers: [3, 1] }, /layers is \[3,1\], must be a rising list of layers/],
  [{ layers: [] }, /layers is \[\], must be a rising list/],
  [{ layers: "7" }, /layers is "7", must be a rising list/],
  [{ num_key_value_heads: 7 }, /num_key_value_heads is 7, must divide 64/],
  [{ head_dim: 24 }, /head_dim is 24, must be a multiple of 16 up to 256/],
  [{ kv_norm: 1 }, /kv_norm is 1, must be true or false/],
  [{ norm_eps: 0 }, /norm_eps is 0, must be a number above 0/],
  [{ dropout: 0.1 }, /dropout is 0.1, is not known; known: layers, /],
];
for (const [keys, message] of refused)
  test(`cross_attention_config ${JSON.stringify(keys)} is refused`, () => {
    for (const type of ["NVLM_X", "NVLM_H"])
      assert.throws(() => cross(type, keys), { code: "BAD_MODEL", message });
  });

test("ranks: cross-attention is cut by its own key-value heads; a size they do not allow is refused", () => {
  const config = cross("NVLM_X", { num_attention_heads: 8, num_key_value_heads: 4, head_dim: 32 });
  const { crossCache } = rankProgram(config, { rank: 3, size: 4 });
  assert.deepEqual(crossCache, { layers: 10, kvHeads: 1, headDim: 32 });
  assert.throws(() => rankProgram(config, { rank: 0, size: 8 }), /size 8: the 4 key-value heads/);
});
