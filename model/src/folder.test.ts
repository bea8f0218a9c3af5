import assert from "node:assert/strict";
import { cp, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openModel } from "./folder.js";

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const fixture = root("test/fixtures/nvlm-d-72b");
const INDEX = "model.safetensors.index.json";
const index = JSON.parse(await readFile(join(fixture, INDEX), "utf8")) as {
  weight_map: Record<string, string>;
};
const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));

/** config.json, and an index when one is given. */
async function folderWith(content?: unknown): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tessera-folder-"));
  folders.push(folder);
  await cp(join(fixture, "config.json"), join(folder, "config.json"));
  if (content !== undefined) await writeFile(join(folder, INDEX), JSON.stringify(content));
  return folder;
}

test("openModel: config.json and the index are enough to look at a model", async () => {
  const model = await openModel(await folderWith(index));
  assert.deepEqual(model.stopTokenIds, [151645]);
  await model.checkIndex();
});

test("openModel: config.json alone is enough too", async () => {
  await (await openModel(await folderWith())).checkIndex();
});

test("the real index has 1556 tensors, all of which the model needs", async () => {
  assert.equal(Object.keys(index.weight_map).length, 1556);
  const { "language_model.lm_head.weight": _gone, ...rest } = index.weight_map;
  const model = await openModel(await folderWith({ weight_map: rest }));
  const message = `${INDEX}: tensor language_model.lm_head.weight: missing`;
  await assert.rejects(model.checkIndex(), { code: "BAD_MODEL", message });
});

const bad: [string, unknown, RegExp][] = [
  ["no weight_map", {}, /weight_map is no object/],
  ["a list", { weight_map: [] }, /weight_map is no object/],
  ["a file in another folder", { weight_map: { a: "../secret" } }, /file name "\.\.\/secret"/],
  ["an absolute path", { weight_map: { a: "/etc/passwd" } }, /file name "\/etc\/passwd"/],
  ["a file name that is a number", { weight_map: { a: 7 } }, /file name 7/],
  ["an empty file name", { weight_map: { a: "" } }, /file name ""/],
];
for (const [name, content, message] of bad)
  test(`the index: ${name} is refused`, async () => {
    const model = await openModel(await folderWith(content));
    await assert.rejects(model.checkIndex(), { code: "BAD_MODEL", message });
    await assert.rejects(model.tensors(), { code: "BAD_MODEL", message });
  });

test("tensors: a weight file that is not there is refused by name", async () => {
  const model = await openModel(await folderWith(index));
  const message = /model-000\d\d-of-00046\.safetensors: cannot be opened/;
  await assert.rejects(model.tensors(), { code: "BAD_MODEL", message });
});

test("hash: the same for a copy, another for another place of a tensor", async () => {
  const tiny = await openModel(root("models/nvlm-d-tiny"));
  const other = await openModel(root("test/goldens/checkpoint"));
  assert.match(await tiny.hash(), /^[0-9a-f]{64}$/);
  assert.notEqual(await tiny.hash(), await other.hash());
  const folder = await mkdtemp(join(tmpdir(), "tessera-folder-"));
  folders.push(folder);
  await cp(root("models/nvlm-d-tiny"), folder, { recursive: true });
  assert.equal(await (await openModel(folder)).hash(), await tiny.hash());
});

/** A copy of the bundled model. */
async function copyOfTiny(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tessera-folder-"));
  folders.push(folder);
  await cp(root("models/nvlm-d-tiny"), folder, { recursive: true });
  return folder;
}

const TENSOR = "language_model.lm_head.weight";
const places: [string, (bytes: number) => number][] = [
  ["first", () => 0],
  ["middle", (bytes) => bytes / 2],
  ["last", (bytes) => bytes - 1],
];
for (const [name, placeOf] of places)
  test(`hash: another for a changed ${name} byte of a tensor, whose place and shape stay`, async () => {
    const folder = await copyOfTiny();
    const model = await openModel(folder);
    const before = await model.hash();
    const tensor = (await model.tensors())[TENSOR] ?? assert.fail();
    const at = tensor.offset + Math.floor(placeOf(tensor.bytes));
    const file = await open(tensor.path, "r+");
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, at);
    await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at);
    await file.close();
    assert.notEqual(await (await openModel(folder)).hash(), before);
  });

test("checkStopTokens: a stop id beyond the vocabulary is refused with both numbers", async () => {
  const folder = await copyOfTiny();
  const tiny = await openModel(folder);
  tiny.checkStopTokens();
  const { vocabularySize } = tiny.config.decoder;
  const generation = join(folder, "generation_config.json");
  await writeFile(generation, JSON.stringify({ eos_token_id: [3, vocabularySize] }));
  const model = await openModel(folder);
  const message = `${generation}: eos_token_id ${vocabularySize}, the vocabulary has ${vocabularySize} ids`;
  assert.throws(() => model.checkStopTokens(), { code: "BAD_MODEL", message });
});
