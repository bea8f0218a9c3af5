/** Pictures of a workload: seeded patterns that differ from each other in every tile. */
import { sourceOf } from "./random.js";

export interface PictureSize {
  width: number;
  height: number;
}

export interface Picture extends PictureSize {
  data: Uint8Array;
  /** The same bytes as a data URL, made once. */
  url: string;
}

/** Pixels a side of the pattern's squares: large enough for small files, small enough that no tile is of one colour. */
const SQUARE = 16;
const CHANNELS = 3;
export const MAX_SIDE = 8192;

/** Raw RGB rows of coloured squares. */
function patternOf({ width, height }: PictureSize, seed: number, name: string): Buffer {
  const source = sourceOf(seed, name);
  const across = Math.ceil(width / SQUARE);
  const pixels = Buffer.alloc(width * height * CHANNELS);
  for (let top = 0; top < height; top += SQUARE) {
    const colours = Uint8Array.from({ length: across * CHANNELS }, () =>
      Math.floor(source() * 256),
    );
    const row = Buffer.alloc(width * CHANNELS);
    for (let x = 0; x < width; x++) {
      const from = Math.floor(x / SQUARE) * CHANNELS;
      row.set(colours.subarray(from, from + CHANNELS), x * CHANNELS);
    }
    for (let y = top; y < Math.min(top + SQUARE, height); y++) row.copy(pixels, y * row.length);
  }
  return pixels;
}

async function makePicture(size: PictureSize, seed: number, name: string): Promise<Picture> {
  const { default: sharp } = await import("sharp");
  const raw = { width: size.width, height: size.height, channels: CHANNELS } as const;
  const data = await sharp(patternOf(size, seed, name), { raw })
    .png()
    .toBuffer();
  return { ...size, data, url: `data:image/png;base64,${data.toString("base64")}` };
}

/** `count` different pictures, the sizes in turn. The same seed gives the same pixels. */
export async function makePictures(
  sizes: readonly PictureSize[],
  { count, seed }: { count: number; seed: number },
): Promise<Picture[]> {
  const pictures: Picture[] = [];
  for (let i = 0; i < count; i++) {
    const size = sizes[i % sizes.length];
    if (size !== undefined) pictures.push(await makePicture(size, seed, `picture/${i}`));
  }
  return pictures;
}
