/** Image → grid → tiles: nearest ratio, whole-image resize, crops row by row, thumbnail last. */
import { createHash } from "node:crypto";
import { resizeBicubic, type RgbImage } from "@tessera/native/image";
import type { PreparedTile } from "./types.js";

export interface TilingOptions {
  tileSize: number;
  maxTiles: number;
  useThumbnail: boolean;
}

export interface Grid {
  columns: number;
  rows: number;
}

/** Every grid of at most `maxTiles` tiles, by area. */
export function grids(maxTiles: number): Grid[] {
  const out: Grid[] = [];
  for (let columns = 1; columns <= maxTiles; columns++)
    for (let rows = 1; columns * rows <= maxTiles; rows++) out.push({ columns, rows });
  return out.sort((a, b) => a.columns * a.rows - b.columns * b.rows);
}

/** The grid of the nearest ratio; on a tie the larger, when the picture fills more than half of it. */
export function chooseGrid(size: { width: number; height: number }, options: TilingOptions): Grid {
  let best: Grid = { columns: 1, rows: 1 };
  let bestDistance = Infinity;
  const { width, height } = size;
  for (const grid of grids(options.maxTiles)) {
    const distance = Math.abs(width / height - grid.columns / grid.rows);
    const area = 0.5 * options.tileSize * options.tileSize * grid.columns * grid.rows;
    if (distance < bestDistance || (distance === bestDistance && width * height > area)) {
      best = grid;
      bestDistance = distance;
    }
  }
  return best;
}

/** Tiles of a grid, the thumbnail counted: a single tile has none. */
export function patchCount({ columns, rows }: Grid, useThumbnail: boolean): number {
  const regular = columns * rows;
  return regular + (useThumbnail && regular > 1 ? 1 : 0);
}

function crop(image: RgbImage, x: number, y: number, size: number): Uint8Array {
  const out = new Uint8Array(3 * size * size);
  for (let row = 0; row < size; row++) {
    const from = 3 * ((y + row) * image.width + x);
    out.set(image.data.subarray(from, from + 3 * size), 3 * row * size);
  }
  return out;
}

function tile(pixels: Uint8Array): PreparedTile {
  return { sha256: createHash("sha256").update(pixels).digest("hex"), pixels };
}

export async function tileImage(
  image: RgbImage,
  options: TilingOptions,
): Promise<{ grid: [number, number]; tiles: PreparedTile[] }> {
  const { columns, rows } = chooseGrid(image, options);
  const size = options.tileSize;
  const whole = await resizeBicubic(image, { width: columns * size, height: rows * size });
  const tiles: PreparedTile[] = [];
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      tiles.push(tile(crop(whole, column * size, row * size, size)));
  if (patchCount({ columns, rows }, options.useThumbnail) > tiles.length)
    tiles.push(tile((await resizeBicubic(image, { width: size, height: size })).data));
  return { grid: [columns, rows], tiles };
}
