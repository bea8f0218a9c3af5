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

for (const [name, damage, message] of rows)
  test(`up: ${name} is refused`, async () => {
    const model = await copyModel();
    try {
      await damage(model);
      const { code, stderr } = await tessera(["up", "--model", model.dir, "--port", "0"]);
      assert.equal(code, 1, stderr);
      assert.match(stderr, message);
    } finally {
      await model.remove();
    }
  });
