/** Pictures of noise, and users that send them. */
import { randomFillSync } from "node:crypto";
import type { GenerateInput, TesseraClient } from "@tessera/client";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import sharp from "sharp";
import { scrape, type Serving } from "./serve.js";

/** Grids by their patches, the thumbnail counted. */
export const GRIDS = {
  1: { columns: 1, rows: 1 },
  3: { columns: 2, rows: 1 },
  7: { columns: 3, rows: 2 },
} as const;
export type Patches = keyof typeof GRIDS;

/**
 * A PNG file of exactly the grid's pixels, uncompressed, so that reading it costs next to nothing. No picture comes
 * twice: no cache knows any tile of it.
 */
export function noisePicture(patches: Patches, tileSize: number): Promise<Buffer> {
  const { columns, rows } = GRIDS[patches];
  const [width, height] = [columns * tileSize, rows * tileSize];
  const pixels = randomFillSync(Buffer.alloc(3 * width * height));
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .png({ compressionLevel: 0 })
    .toBuffer();
}

export function noisePictures(
  count: number,
  patches: Patches,
  tileSize: number,
): Promise<Buffer[]> {
  return Promise.all(Array.from({ length: count }, () => noisePicture(patches, tileSize)));
}

/** One token about the picture. */
export function pictureRequest(data: Uint8Array): GenerateInput {
  const parts = [
    { content: { case: "image" as const, value: { data } } },
    { content: { case: "text" as const, value: "Read." } },
  ];
  return { messages: [{ role: Role.USER, parts }], maxTokens: 1, stop: { ignoreEos: true } };
}

/** `users` together send the pictures, each the next one when its last is answered. → seconds until all are answered. */
export async function sendAll(
  client: TesseraClient,
  pictures: readonly Buffer[],
  users: number,
): Promise<number> {
  const rest = pictures.values();
  const user = async () => {
    for (const data of rest) await client.generateOnce(pictureRequest(data));
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: users }, user));
  return (performance.now() - start) / 1e3;
}

/** Since the cluster's start. */
export async function encodedTiles({ cluster }: Serving): Promise<number> {
  const [tiles = NaN] = await scrape(cluster, ["tessera_encode_batch_tiles_sum"]);
  return tiles;
}

/** What `work` takes, after making sure that the cluster encoded `tiles` tiles in it, none of them known before. */
export async function withTiles<T>(
  serving: Serving,
  tiles: number,
  work: () => Promise<T>,
): Promise<T> {
  const before = await encodedTiles(serving);
  const made = await work();
  const encoded = (await encodedTiles(serving)) - before;
  if (encoded !== tiles) throw new Error(`${encoded} tiles were encoded, not ${tiles}`);
  return made;
}
