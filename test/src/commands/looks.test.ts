/** `tessera tokenize` and `tessera tiles` through the command line, on a few goldens; all of them in looks.long.test.ts. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { decodeImage, IMAGE_LIMITS } from "@tessera/coordinator/request";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";
import { assertTiles, pictureGoldens, qwenFolder, textGoldens, tokenize } from "./looks.js";

const model = await qwenFolder();
after(() => rm(model, { recursive: true }));
const texts = await textGoldens();
const pictures = await pictureGoldens();

/** Every n-th of a list. */
const some = <T>(list: T[], step: number) => list.filter((_, i) => i % step === 0);

test("tokenize: golden texts with their special tokens give the reference's ids, all merges kept", async () => {
  for (const { name, text, ids, ids_all_merges } of some(texts, 40))
    assert.deepEqual((await tokenize(model, text, "--special")).ids, ids_all_merges ?? ids, name);
});

test("tokenize: special-token text is plain text unless --special is said", async () => {
  const special = texts.filter((one) => one.ids_plain !== undefined);
  const one = special[0] ?? assert.fail("no golden");
  assert.deepEqual((await tokenize(model, one.text)).ids, one.ids_plain);
  assert.deepEqual((await tokenize(model, one.text, "--special")).ids, one.ids);
});

test("tokenize: tokens stand beside their ids, and without --json a line each", async () => {
  const { ids, tokens } = await tokenize(model, "Hello, world!");
  assert.deepEqual(ids, [9707, 11, 1879, 0]);
  assert.deepEqual(tokens, ["Hello", ",", "Ġworld", "!"]);
  const plain = await tessera(["tokenize", "--model", model], { input: "Hello, world!" });
  assert.equal(plain.stdout, "9707\tHello\n11\t,\n1879\tĠworld\n0\t!\n");
});

test("tokenize: nothing in, nothing out", async () => {
  assert.deepEqual(await tokenize(model, ""), { ids: [], tokens: [] });
  const plain = await tessera(["tokenize", "--model", model], { input: "" });
  assert.deepEqual([plain.code, plain.stdout], [0, ""]);
});

test("tokenize: a lone surrogate and broken UTF-8 become U+FFFD", async () => {
  const want = (await tokenize(model, "a\ufffdb")).ids;
  assert.deepEqual((await tokenize(model, Buffer.from("61eda08062", "hex"))).ids, want);
  assert.deepEqual((await tokenize(model, Buffer.from("61ff62", "hex"))).ids, want);
});

test("tokenize: a folder without a tokenizer is refused by name", async () => {
  const { code, stderr } = await tessera(["tokenize", "--model", root("docs")], { input: "a" });
  assert.equal(code, 1);
  assert.match(stderr, /no tokenizer\.json, and no vocab\.json with merges\.txt/);
});

test("tiles: golden pictures give the reference's tiles", async () => {
  for (const picture of some(pictures, 6)) await assertTiles(picture);
});

test("tiles -o: writes every tile as a PNG with the same pixels", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tessera-tiles-"));
  try {
    const photo = root("test/goldens/resize/photo.png");
    const { code, stdout, stderr } = await tessera(["tiles", photo, "--json", "-o", folder]);
    assert.equal(code, 0, stderr);
    const { tiles } = JSON.parse(stdout) as { tiles: { sha256: string }[] };
    const files = await readdir(folder);
    assert.equal(files.length, tiles.length);
    const { createHash } = await import("node:crypto");
    for (const [i, { sha256 }] of tiles.entries()) {
      const data = await readFile(join(folder, `tile-${i + 1}.png`));
      const picture = await decodeImage(data, { field: "tile", limits: IMAGE_LIMITS });
      assert.equal(createHash("sha256").update(picture.data).digest("hex"), sha256);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

const photo = root("test/goldens/resize/photo.png");
const refused: [string, string[], RegExp][] = [
  ["a GIF", [root("test/goldens/resize/animated-gif.gif")], /is a GIF; JPEG, PNG and WebP/],
  ["a file that is not there", ["/nowhere/page.png"], /\/nowhere\/page\.png/],
  ["a text", [root("README.md")], /is no picture/],
  ["tiles of 0 pixels", [photo, "--image-size", "0"], /--image-size.*must be/],
  ["no tiles", [photo, "--max-tiles", "0"], /--max-tiles.*must be/],
  ["tiles beyond the limit", [photo, "--max-tiles", "1000000"], /--max-tiles.*must be/],
  ["tiles that are too large", [photo, "--image-size", "1000000"], /--image-size.*must be/],
];
for (const [name, args, message] of refused)
  test(`tiles: ${name} is refused`, async () => {
    const { code, stdout, stderr } = await tessera(["tiles", ...args, "--json"]);
    assert.equal(code, 1, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, message);
  });
