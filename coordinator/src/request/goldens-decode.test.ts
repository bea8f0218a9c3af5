/** Token ids → text as the public reference decodes, special tokens kept and skipped. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PLAIN } from "./choice-settings.fixture.js";
import { createChoiceText } from "./choice-text.js";
import { loadTokenizer } from "./tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../test/${path}`, import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "tessera-decode-"));
after(() => rm(folder, { recursive: true }));
await cp(root("fixtures/qwen2-tokenizer"), folder, { recursive: true });
await cp(root("fixtures/nvlm-d-72b/tokenizer_config.json"), join(folder, "tokenizer_config.json"));
const tokenizer = await loadTokenizer(folder);

interface Goldens {
  special_ids: Record<string, number>;
  skipped_special_ids: number[];
  decode: { name: string; ids: number[]; text: string; text_skip_special?: string }[];
}
const goldens = JSON.parse(await readFile(root("goldens/tokenizer.json"), "utf8")) as Goldens;

function decode(ids: number[], skipSpecialTokens: boolean): string {
  const choice = createChoiceText({ ...PLAIN, skipSpecialTokens }, tokenizer);
  const pieces = ids.map((tokenId) => choice.push({ tokenId, logprob: undefined, top: [] }));
  return [...pieces, choice.end({ reason: "length" })].map(({ text }) => text).join("");
}

test("decoding: every golden list of ids gives the reference's text, special tokens kept", () => {
  assert.ok(goldens.decode.length > 20);
  for (const { name, ids, text } of goldens.decode) assert.equal(decode(ids, false), text, name);
});

test("decoding: every golden list of ids gives the reference's text, special tokens skipped", () => {
  for (const { name, ids, text, text_skip_special } of goldens.decode)
    assert.equal(decode(ids, true), text_skip_special ?? text, name);
});

test("special tokens have the reference's ids, and those that it skips are special", () => {
  const names = Object.entries(goldens.special_ids);
  assert.ok(names.length > 20);
  for (const [text, id] of names) assert.equal(tokenizer.specialId(text), id, text);
  const special = names.map(([, id]) => id).filter((id) => tokenizer.isSpecial(id));
  assert.deepEqual(special, goldens.skipped_special_ids);
});
