/** A damaged model folder stops `tessera up` with a message that names file, tensor, limit and value. */
import assert from "node:assert/strict";
import { open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { tessera } from "../harness/command.js";
import { copyModel, halve, type ModelCopy } from "../harness/damage.js";

const NORM = "language_model.model.norm.weight";
const rows: [string, (model: ModelCopy) => Promise<void>, RegExp][] = [
  [
    "a missing tensor",
    (model) =>
      model.editHeader((header) => {
        const norm = header[NORM] ?? assert.fail();
        delete header[NORM];
        header["unused"] = norm;
      }),
    /tensor language_model\.model\.norm\.weight: missing/,
  ],
  [
    "a wrong shape",
    (model) =>
      model.editHeader((header) => {
        const norm = header[NORM] ?? assert.fail();
        norm.shape = [2, (norm.shape[0] ?? 0) / 2];
      }),
    /tensor language_model\.model\.norm\.weight: shape \[2, \d+\], must be \[\d+\]/,
  ],
  [
    "a truncated file",
    (model) => halve(model.weights),
    /model\.safetensors: tensor \S+: ends at byte \d+, the file has \d+/,
  ],
  [
    "overlapping offsets",
    (model) =>
      model.editHeader((header) => {
        const norm = header[NORM] ?? assert.fail();
        const [begin, end] = norm.data_offsets;
        norm.data_offsets = [begin - 2, end - 2];
      }),
    /model\.safetensors: tensors \S+ and \S+ overlap/,
  ],
  [
    "a header of 2 GiB",
    async (model) => {
      const file = await open(model.weights, "r+");
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(2n << 30n);
      await file.write(length, 0, 8, 0);
      await file.close();
    },
    /header of 2147483648 bytes, limit 100000000/,
  ],
  [
    "NaN weights",
    (model) => model.editData(NORM, (bytes) => bytes.fill(0xff, 0, 4)),
    /tensor language_model\.model\.norm\.weight: .*has a value that is not finite/,
  ],
  [
    "a stop id beyond the vocabulary",
    (model) => writeFile(join(model.dir, "generation_config.json"), '{"eos_token_id": 999999}'),
    /generation_config\.json: eos_token_id 999999, the vocabulary has \d+ ids/,
  ],
  [
    "no tokenizer",
    async (model) => {
      for (const file of ["tokenizer.json", "vocab.json", "merges.txt"])
        await rm(join(model.dir, file));
    },
    /tokenizer\.json/,
  ],
  ["no config", (model) => rm(join(model.dir, "config.json")), /config\.json: cannot be read/],
];

const GATE = "language_model.model.layers.1.cross_attn.gate";
const QUERY = "language_model.model.layers.1.cross_attn.q_proj.weight";
const crossRows: [string, (model: ModelCopy) => Promise<void>, RegExp][] = [
  [
    "an unknown key",
    (model) => model.editCross({ perceiver: true }),
    /cross_attention_config\.perceiver is true, is not known; known: layers, /,
  ],
  [
    "an unknown gate",
    (model) => model.editCross({ gate: "sigmoid" }),
    /cross_attention_config\.gate is "sigmoid", must be tanh or none/,
  ],
  [
    "a feed-forward of its own",
    (model) => model.editCross({ ffn: true }),
    /cross_attention_config\.ffn is true, /,
  ],
  [
    "a layer that the decoder does not have",
    (model) => model.editCross({ layers: [1, 4] }),
    /cross_attention_config\.layers is \[1,4\], must lie below num_hidden_layers \(4\)/,
  ],
  [
    "no gate among the tensors",
    (model) =>
      model.editHeader((header) => {
        header["unused"] = header[GATE] ?? assert.fail();
        delete header[GATE];
      }),
    /tensor language_model\.model\.layers\.1\.cross_attn\.gate: missing/,
  ],
  [
    "queries of another shape",
    (model) =>
      model.editHeader((header) => {
        const query = header[QUERY] ?? assert.fail();
        query.shape = [(query.shape[0] ?? 0) * 2, (query.shape[1] ?? 0) / 2];
      }),
    /tensor \S+cross_attn\.q_proj\.weight: shape \[\d+, \d+\], must be \[\d+, \d+\]/,
  ],
];

async function refused(
  name: string,
  damage: (model: ModelCopy) => Promise<void>,
  message: RegExp,
): Promise<void> {
  const model = await copyModel(name);
  try {
    await damage(model);
    const { code, stderr } = await tessera([
      "up",
      "--model",
      model.dir,
      "--port",
      "0",
      "--no-http",
    ]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
  } finally {
    await model.remove();
  }
}

for (const [name, damage, message] of rows)
  test(`up: ${name} is refused`, () => refused("nvlm-d-tiny", damage, message));
for (const [name, damage, message] of crossRows)
  test(`up, cross-attention: ${name} is refused`, () => refused("nvlm-x-tiny", damage, message));
