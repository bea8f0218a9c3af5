/** The public reference's resizing, crops and kinds of pictures. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { resizeBicubic } from "@tessera/native/image";
import { ServeError } from "@tessera/proto";
import { checkImage, decodeImage, IMAGE_LIMITS } from "./image-decode.js";
import { tileImage } from "./tiling.js";

const root = (path: string) =>
  fileURLToPath(new URL(`../../../test/goldens/${path}`, import.meta.url));
const json = async (path: string): Promise<unknown> =>
  JSON.parse(await readFile(root(path), "utf8"));
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const decode = async (file: string) =>
  decodeImage(await readFile(root(`resize/${file}`)), { field: file, limits: IMAGE_LIMITS });

interface Source {
  file: string;
  pillow_mode: string;
  decoded_png?: string;
  resizes: { size: [number, number]; sha256: string }[];
}
const { sources } = (await json("resize/resize.json")) as { sources: Source[] };

test("resize: every golden size of every picture gives the reference's bytes", async () => {
  const taken = sources.filter(
    ({ file, pillow_mode: mode }) => !file.endsWith(".gif") && !mode.startsWith("I"),
  );
  const wanted = taken.flatMap(({ file, decoded_png: png, resizes }) =>
    resizes.map((one) => ({ file: png ?? file, ...one })),
  );
  assert.ok(wanted.length >= 75, `${wanted.length}`);
  for (const { file, size, sha256: want } of wanted) {
    const [width, height] = size;
    const { data } = await resizeBicubic(await decode(file), { width, height });
    assert.equal(sha256(data), want, `${file} to ${width} × ${height}`);
  }
});

interface Tiling {
  columns: string[];
  cases: number[][];
  crops: { case: number[]; boxes: [number, number, number, number][] }[];
}
const tiling = (await json("tiling.json")) as Tiling;

/** A picture whose pixels say where they lie: R and G the column and row in tiles of 16, B their remainders. */
function mapOf(width: number, height: number) {
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      data.set([x >> 4, y >> 4, ((x & 15) << 4) | (y & 15)], 3 * (y * width + x));
  return { width, height, data };
}

function placeOf(pixels: Uint8Array, at: number): [number, number] {
  const [r = 0, g = 0, b = 0] = pixels.subarray(3 * at, 3 * at + 3);
  return [16 * r + (b >> 4), 16 * g + (b & 15)];
}

test("crops: a picture of the target size is cut into the reference's boxes", async () => {
  assert.ok(tiling.crops.length > 5);
  for (const { case: row, boxes } of tiling.crops) {
    const at = (name: string) => row[tiling.columns.indexOf(name)] ?? NaN;
    const size = at("image_size");
    const picture = mapOf(at("target_width"), at("target_height"));
    const options = {
      tileSize: size,
      maxTiles: at("max_num"),
      useThumbnail: at("use_thumbnail") === 1,
    };
    const { tiles } = await tileImage(picture, options);
    assert.equal(tiles.length, at("patches"), row.join());
    const got = tiles.slice(0, boxes.length).map(({ pixels }) => {
      const [left, top] = placeOf(pixels, 0);
      const [right, bottom] = placeOf(pixels, size * size - 1);
      return [left, top, right + 1, bottom + 1];
    });
    assert.deepEqual(got, boxes, row.join());
  }
});

test("16-bit grey keeps the high byte, where the reference turns all but black white", async () => {
  const sixteen = sources.filter(({ pillow_mode: mode }) => mode.startsWith("I"));
  assert.deepEqual(
    sixteen.map(({ file }) => file),
    ["sixteen-bit-grey.png"],
  );
  const { data } = await decode("sixteen-bit-grey.png");
  const grey = data.filter((_, i) => i % 3 === 0);
  assert.ok(new Set(grey).size > 16, "shades are left");
  assert.ok(grey.every((value, i) => data[3 * i + 1] === value && data[3 * i + 2] === value));
});

test("a GIF is refused by name, before it is decoded", async () => {
  const gif = await readFile(root("resize/animated-gif.gif"));
  const options = { field: "image", mediaType: "", limits: IMAGE_LIMITS };
  assert.throws(
    () => checkImage(gif, options),
    (error) =>
      error instanceof ServeError &&
      error.code === "INVALID_IMAGE" &&
      error.message === "image: is a GIF; JPEG, PNG and WebP are taken",
  );
});
