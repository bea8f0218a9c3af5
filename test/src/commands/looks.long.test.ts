/** Every golden text and picture through the command line, as a stranger would. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, test } from "node:test";
import { assertTiles, pictureGoldens, qwenFolder, textGoldens, tokenize } from "./looks.js";

const model = await qwenFolder();
after(() => rm(model, { recursive: true }));

test("tokenize: every golden text gives the reference's ids, all merges kept", async () => {
  const texts = await textGoldens();
  assert.ok(texts.length > 160);
  for (const { name, text, ids, ids_all_merges } of texts)
    assert.deepEqual((await tokenize(model, text, "--special")).ids, ids_all_merges ?? ids, name);
});

test("tiles: every golden picture gives the reference's tiles", async () => {
  const pictures = await pictureGoldens();
  assert.ok(pictures.length > 25);
  for (const picture of pictures) await assertTiles(picture);
});
