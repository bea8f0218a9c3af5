import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import sharp from "sharp";
import { ServeError } from "@tessera/proto";
import { checkImage, decodeImage, IMAGE_LIMITS } from "./image-decode.js";
import { otherFormat, readImageHeader } from "./image-header.js";

const root = (path: string) =>
  fileURLToPath(new URL(`../../../test/goldens/resize/${path}`, import.meta.url));
interface Source {
  file: string;
  size: [number, number];
}
const { sources } = JSON.parse(await readFile(root("resize.json"), "utf8")) as {
  sources: Source[];
};
const pictures = await Promise.all(
  sources
    .filter(({ file }) => !file.endsWith(".gif"))
    .map(async (source) => ({ ...source, data: await readFile(root(source.file)) })),
);

const TYPES: Record<string, string> = {
  png: "image/png",
  jpg: "image/jpeg",
  webp: "image/webp",
};

test("readImageHeader: type and size of every golden picture, without decoding", () => {
  assert.ok(pictures.length > 25);
  for (const { file, size, data } of pictures) {
    const [width, height] = size;
    const mediaType = TYPES[file.split(".").at(-1) ?? ""];
    const frames = readImageHeader(data)?.frames;
    assert.deepEqual(readImageHeader(data), { mediaType, width, height, frames }, file);
    assert.equal((frames ?? 0) > 1, file.startsWith("animated"), file);
  }
});

test("frames: an animated PNG says its number, an animated WebP has so many ANMF chunks; a limit holds", async () => {
  const frame = (value: number) => Buffer.alloc(8 * 8 * 3, value);
  const raw = { width: 8, height: 24, channels: 3, pageHeight: 8 } as const;
  const stacked = Buffer.concat([frame(10), frame(120), frame(240)]);
  const animated = await sharp(stacked, { raw })
    .webp({ loop: 0, delay: [9, 9, 9] })
    .toBuffer();
  assert.equal(readImageHeader(animated)?.frames, 3);
  const limits = { ...IMAGE_LIMITS, maxFrames: 2 };
  assert.throws(() => checkImage(animated, { field: "image", mediaType: "", limits }), {
    code: "INVALID_IMAGE",
    message: "image: has 3 frames, limit 2",
  });
  const png = pictures.find(({ file }) => file === "animated.png");
  const many = Buffer.from(png?.data ?? []);
  const at = many.indexOf("acTL");
  assert.ok(at > 0);
  many.writeUInt32BE(5000, at + 4);
  assert.throws(
    () => checkImage(many, { field: "image", mediaType: "", limits: IMAGE_LIMITS }),
    /image: has 5000 frames, limit 1024/,
  );
});

test("otherFormat: what is not taken is called by its name", () => {
  const cases: [string | Uint8Array, string][] = [
    ["GIF89a....", "a GIF"],
    ["GIF87a", "a GIF"],
    ["II*\0....", "a TIFF"],
    ["MM\0*....", "a TIFF"],
    ["<svg/>", "an SVG"],
    ['<?xml version="1.0"?><svg/>', "an SVG"],
    ["BM......", "a BMP"],
    ["hello", "no picture"],
    ["", "no picture"],
  ];
  for (const [bytes, want] of cases) assert.equal(otherFormat(Buffer.from(bytes)), want);
});

const options = { field: "image", mediaType: "", limits: IMAGE_LIMITS };
/** Passes, or is refused as this request's own fault with the field named. */
function assertTakenOrRefused(work: () => unknown): void {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof ServeError, String(error));
    assert.equal(error.code, "INVALID_IMAGE");
    assert.match(error.message, /^image: /);
  }
}

const damaged = fc
  .record({
    picture: fc.constantFrom(...pictures),
    length: fc.nat(4096),
    edits: fc.array(fc.tuple(fc.nat(63), fc.nat(255)), { maxLength: 8 }),
  })
  .map(({ picture, length, edits }) => {
    const bytes = Buffer.from(picture.data.subarray(0, length));
    for (const [at, value] of edits) bytes.subarray(at, at + 1).fill(value);
    return bytes;
  });

test("checkImage: cut and changed headers are taken or refused, never anything else", () => {
  fc.assert(
    fc.property(damaged, (bytes) => assertTakenOrRefused(() => checkImage(bytes, options))),
    { numRuns: 5000 },
  );
});

test("checkImage: any bytes at all are taken or refused, never anything else", () => {
  const magic = fc.constantFrom("", "\x89PNG\r\n\x1a\n", "\xff\xd8\xff", "RIFF....WEBPVP8 ");
  const bytes = fc
    .tuple(magic, fc.uint8Array({ maxLength: 80 }))
    .map(([head, rest]) => Buffer.concat([Buffer.from(head, "latin1"), rest]));
  fc.assert(
    fc.property(bytes, (data) => assertTakenOrRefused(() => checkImage(data, options))),
    { numRuns: 5000 },
  );
});

test("decodeImage: damaged pictures are decoded or refused, never anything else", async () => {
  const small = damaged.filter((bytes) => {
    const header = readImageHeader(bytes);
    return header !== undefined && header.width * header.height < 1 << 18;
  });
  await fc.assert(
    fc.asyncProperty(small, async (bytes) => {
      const decoded = await decodeImage(bytes, options).catch((error: unknown) => error);
      assertTakenOrRefused(() => {
        if (decoded instanceof Error) throw decoded;
      });
    }),
    { numRuns: 150 },
  );
});

test("checkImage: a JPEG whose header never comes is refused, however long it is", () => {
  const long = Buffer.alloc(4 << 20, 0xff);
  long.set([0xff, 0xd8]);
  assertTakenOrRefused(() => checkImage(long, options));
  const empty = Buffer.alloc(1 << 20);
  empty.set([0xff, 0xd8]);
  for (let at = 2; at + 4 < empty.length; at += 4) empty.set([0xff, 0xe0, 0, 2], at);
  assert.throws(() => checkImage(empty, options), /0 × 0/);
});
