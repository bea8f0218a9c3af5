import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { loadTokenizer } from "./tokenizer.js";

type Json = Record<string, unknown>;
const model = fileURLToPath(new URL("../../../models/nvlm-d-tiny/", import.meta.url));
const stored = JSON.parse(await readFile(join(model, "tokenizer.json"), "utf8")) as Json;
const dir = await mkdtemp(join(tmpdir(), "tessera-tokenizer-"));
after(() => rm(dir, { recursive: true }));
for (const file of ["config.json", "tokenizer_config.json"])
  await cp(join(model, file), join(dir, file));

async function load(change: Json) {
  await writeFile(join(dir, "tokenizer.json"), JSON.stringify({ ...stored, ...change }));
  return loadTokenizer(dir);
}

test("tokenizer.json: the model's own is taken", async () => {
  const tokenizer = await load({});
  assert.deepEqual(
    tokenizer.encode("What is the name?", { special: false }),
    (await loadTokenizer(model)).encode("What is the name?", { special: false }),
  );
});

const split = { type: "Split", pattern: { Regex: "\\\\w+" }, behavior: "Isolated", invert: false };
const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
const refused: [string, Json, RegExp][] = [
  ["no normalizer", { normalizer: null }, /normalizer is null, must be Qwen2's/],
  ["NFKC", { normalizer: { type: "NFKC" } }, /normalizer is .*NFKC.*, must be Qwen2's .*NFC/],
  [
    "another pattern",
    { pre_tokenizer: { type: "Sequence", pretokenizers: [split, bytes] } },
    /pre_tokenizer is .*, must be Qwen2's/,
  ],
  ["no split", { pre_tokenizer: bytes }, /pre_tokenizer is .*ByteLevel.*, must be Qwen2's/],
  ["no merges", { model: { vocab: {} } }, /model.vocab or model.merges is missing/],
];
for (const [name, change, message] of refused)
  test(`tokenizer.json with ${name} is refused`, async () => {
    await assert.rejects(load(change), { code: "BAD_MODEL", message });
  });
