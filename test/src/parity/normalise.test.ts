/** The reference's normalised pixels, to the bit: f32 as the engine computes them, and their rounding to bf16. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { decodeImage, IMAGE_LIMITS, tileImage } from "@tessera/coordinator/request";
import { normalise } from "@tessera/native/image";
import { roundWeights } from "../harness/rounding.js";
import { root } from "../harness/paths.js";

interface Goldens {
  lookup: { channel: string; f32: string[]; bf16: string[] }[];
  small: { size: [number, number]; u8_hwc: string; f32_chw: string; bf16_chw: string }[];
  tiles: { file: string; tile: number; u8_sha256: string; f32_chw_sha256: string }[];
}
const goldens = JSON.parse(await readFile(root("test/goldens/normalise.json"), "utf8")) as Goldens;

/** Bits in hex, big end first, as the goldens write them. */
function hex(values: Float32Array): string[] {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return [...bits].map((value) => value.toString(16).padStart(8, "0"));
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** f32 [3, 16, 16]: value v of each channel at place v. */
const everyValue = normalise(
  Uint8Array.from({ length: 3 * 256 }, (_, i) => Math.floor(i / 3)),
  16,
);

test("normalise: every value of every channel has the reference's f32 bits", () => {
  const want = goldens.lookup.flatMap(({ f32 }) => f32);
  assert.equal(want.length, 768);
  assert.deepEqual(hex(everyValue), want);
});

test("normalise: rounded to bf16 every value has the reference's bits", async () => {
  const rounded = hex(await roundWeights(everyValue));
  assert.deepEqual(
    rounded,
    goldens.lookup.flatMap(({ bf16 }) => bf16.map((bits) => `${bits}0000`)),
  );
});

test("normalise: small tiles are the reference's, channel by channel", async () => {
  assert.equal(goldens.small.length, 3);
  for (const { size, u8_hwc, f32_chw, bf16_chw } of goldens.small) {
    const got = normalise(Buffer.from(u8_hwc, "hex"), size[0]);
    assert.equal(hex(got).join(""), f32_chw);
    const rounded = hex(await roundWeights(got)).map((bits) => bits.slice(0, 4));
    assert.equal(rounded.join(""), bf16_chw);
  }
});

test("normalise: tiles of pictures have the reference's bytes", async () => {
  assert.equal(goldens.tiles.length, 3);
  for (const { file, tile, u8_sha256, f32_chw_sha256 } of goldens.tiles) {
    const data = await readFile(root(`test/goldens/resize/${file}`));
    const image = await decodeImage(data, { field: file, limits: IMAGE_LIMITS });
    const cut = await tileImage(image, { tileSize: 448, maxTiles: 6, useThumbnail: true });
    const pixels = cut.tiles[tile]?.pixels ?? new Uint8Array(0);
    assert.equal(sha256(pixels), u8_sha256, file);
    const values = normalise(pixels, 448);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    assert.equal(sha256(bytes), f32_chw_sha256, file);
  }
});
