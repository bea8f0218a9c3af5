// Writes a model folder of random weights for benchmarks: variant, decoder, vision encoder and tokenizer of the named
// shape. The same seed gives the same bytes. Needs `make build`; holds one piece of a tensor in memory.
// node scripts/make-random-model.mjs --shape qwen2-0.5b --out build/models/random-qwen2-0.5b [--seed 1]
import { cpSync, existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseConfig, tensorShapes } from "@tessera/model";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const STOP_ID = 151645;
const PIECE_VALUES = 1 << 20;
/** A tensor's random values come from a table of this many, so that a value costs one look-up. */
const TABLE_VALUES = 1 << 16;

const QWEN2 = {
  hidden_size: 896,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
  intermediate_size: 4864,
  vocab_size: 151936,
  rope_theta: 1e6,
  max_position_embeddings: 32768,
};

const VISION = {
  architectures: ["InternVisionModel"],
  model_type: "intern_vit_6b",
  hidden_act: "gelu",
  hidden_size: 144,
  image_size: 112,
  intermediate_size: 576,
  layer_norm_eps: 1e-6,
  norm_type: "rms_norm",
  num_attention_heads: 9,
  num_hidden_layers: 4,
  patch_size: 14,
  qk_normalization: true,
  qkv_bias: false,
};

/** One layer of NVLM-D-72B's vision encoder in its true size. */
const INTERNVIT_LAYER = {
  ...VISION,
  hidden_size: 3200,
  image_size: 448,
  intermediate_size: 12800,
  num_attention_heads: 25,
  num_hidden_layers: 1,
};

/** A tile takes a thread some 10 ms. */
const WIDE_LAYER = { ...VISION, hidden_size: 1152, intermediate_size: 4608, num_hidden_layers: 1 };

const TINY = {
  ...QWEN2,
  hidden_size: 256,
  num_hidden_layers: 4,
  num_attention_heads: 16,
  num_key_value_heads: 8,
  intermediate_size: 704,
  vocab_size: 1024,
};

const QWEN2_TOKENIZER = "test/fixtures/qwen2-tokenizer";
/** Of 1024 ids. */
const TINY_TOKENIZER = "models/nvlm-d-tiny";

/** X and H: every 8th layer with a cross-attention; all else of the decoder as D's. */
const SHAPES = {
  "qwen2-0.5b": { type: "NVLM_D", decoder: QWEN2, vision: VISION, tokenizer: QWEN2_TOKENIZER },
  "qwen2-0.5b-x": { type: "NVLM_X", decoder: QWEN2, vision: VISION, tokenizer: QWEN2_TOKENIZER },
  "qwen2-0.5b-h": { type: "NVLM_H", decoder: QWEN2, vision: VISION, tokenizer: QWEN2_TOKENIZER },
  "internvit-6b-layer": {
    type: "NVLM_D",
    decoder: { ...QWEN2, num_hidden_layers: 1, vocab_size: 1024 },
    vision: INTERNVIT_LAYER,
    tokenizer: TINY_TOKENIZER,
  },
  "tiny-wide-encoder": {
    type: "NVLM_D",
    decoder: TINY,
    vision: WIDE_LAYER,
    tokenizer: TINY_TOKENIZER,
  },
};
const TOKENIZER_FILES = ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"];

function stopIdOf({ vocab_size: ids }) {
  return Math.min(STOP_ID, ids - 1);
}

function configOf({ type, decoder, vision }) {
  return {
    architectures: [type],
    model_type: type,
    downsample_ratio: 0.5,
    dynamic_image_size: true,
    force_image_size: vision.image_size,
    llm_config: {
      architectures: ["Qwen2ForCausalLM"],
      hidden_act: "silu",
      rms_norm_eps: 1e-6,
      tie_word_embeddings: false,
      eos_token_id: stopIdOf(decoder),
      ...decoder,
    },
    max_dynamic_patch: 6,
    ps_version: "v2",
    select_layer: -1,
    torch_dtype: "bfloat16",
    use_thumbnail: true,
    vision_config: vision,
  };
}

/** 32 random bits (mulberry32). */
function randomBits(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** bf16 values, evenly spread, with mean 0 and the given deviation. */
function spread(deviation) {
  const widest = Math.sqrt(3) * deviation;
  const wide = Float32Array.from(
    { length: TABLE_VALUES },
    (_, i) => widest * ((2 * i + 1) / TABLE_VALUES - 1),
  );
  return Uint16Array.from(new Uint32Array(wide.buffer), (bits) => bits >>> 16);
}

function constant(value) {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  return Uint16Array.of(bits >>> 16);
}

/** Norms are 1, biases 0, layer scales 0.1; a linear keeps the size of what goes through it. */
function valuesOf(name, shape) {
  if (name.endsWith(".bias")) return constant(0);
  if (/\.ls[12]$/.test(name)) return constant(0.1);
  if (shape.length === 1) return constant(1);
  if (/embed/.test(name)) return spread(name.includes("patch") ? 588 ** -0.5 : 1);
  return spread(shape.slice(1).reduce((product, n) => product * n, 1) ** -0.5);
}

/** First dummy row and column of NVLM's vision attention tensors; what lies behind must be zero. */
function dummiesOf(name, { heads, storedHeads, headDim }) {
  const [real, stored] = [heads * headDim, storedHeads * headDim];
  if (/vision.*attn\.(qkv|q_norm|k_norm)\.weight$/.test(name)) return { real, stored, by: "rows" };
  if (/vision.*attn\.proj\.weight$/.test(name)) return { real, stored, by: "columns" };
  return undefined;
}

/** Fills `piece` with values first… of the tensor. */
function fill(piece, first, { table, cols, dummies, next }) {
  const mask = table.length - 1;
  for (let i = 0; i < piece.length; i++) piece[i] = table[next() & mask];
  if (dummies === undefined) return;
  for (let i = 0; i < piece.length; i++) {
    const at = first + i;
    const place = dummies.by === "rows" ? Math.floor(at / cols) : at % cols;
    if (place % dummies.stored >= dummies.real) piece[i] = 0;
  }
}

async function writeWeights(path, config, seed) {
  const shapes = [...tensorShapes(config)];
  let offset = 0;
  const header = { __metadata__: { format: "pt" } };
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((product, n) => product * n, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [offset, (offset += bytes)] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = await open(path, "w");
  await file.write(Buffer.concat([length, text]));
  const next = randomBits(seed);
  for (const [name, shape] of shapes) {
    const count = shape.reduce((product, n) => product * n, 1);
    const cols = count / shape[0];
    const table = valuesOf(name, shape);
    const dummies = dummiesOf(name, config.vision);
    for (let first = 0; first < count; first += PIECE_VALUES) {
      const piece = new Uint16Array(Math.min(PIECE_VALUES, count - first));
      fill(piece, first, { table, cols, dummies, next });
      await file.write(new Uint8Array(piece.buffer));
    }
  }
  await file.close();
  return offset;
}

const { values: flags } = parseArgs({
  options: {
    shape: { type: "string" },
    out: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const shape = SHAPES[flags.shape];
if (shape === undefined || flags.out === undefined) {
  console.error(`--shape ${Object.keys(SHAPES).join("|")} and --out DIR are needed`);
  process.exit(2);
}
const json = configOf(shape);
const weights = join(flags.out, "model.safetensors");
mkdirSync(flags.out, { recursive: true });
if (existsSync(weights)) {
  console.log(`${weights} is there`);
  process.exit(0);
}
for (const file of TOKENIZER_FILES) {
  const from = join(ROOT, shape.tokenizer, file);
  if (existsSync(from)) cpSync(from, join(flags.out, file));
}
writeFileSync(join(flags.out, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
writeFileSync(
  join(flags.out, "generation_config.json"),
  `${JSON.stringify({ eos_token_id: stopIdOf(shape.decoder) })}\n`,
);
const bytes = await writeWeights(`${weights}.part`, parseConfig(json), Number(flags.seed));
renameSync(`${weights}.part`, weights);
console.log(`${weights}: ${bytes} bytes of weights`);
