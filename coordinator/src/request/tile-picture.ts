/** A picture of the chosen grid over the whole image, tiles numbered and coloured by where their rows go. */
import sharp from "sharp";
import type { RgbImage } from "@tessera/native/image";
import { GLYPH_HEIGHT, textPath, textWidth } from "./bitmap-font.js";
import type { Grid } from "./tiling.js";

/** Where a tile's rows go; `tile` where no variant is asked for. */
export type TileRoute = "text" | "stream" | "tile";

/** Told apart by people who do not see red and green as two. */
export const ROUTE_COLOURS: Record<TileRoute, string> = {
  text: "#0072b2",
  stream: "#d55e00",
  tile: "#333333",
};
const LEGENDS: Partial<Record<TileRoute, string>> = {
  text: "ROWS IN THE TEXT",
  stream: "ROWS IN THE CROSS-ATTENTION STREAM",
};

/** Of the drawn image's longer side, and of a tile's least side: a number has to be readable. Pixels. */
const SIDE = { least: 640, most: 1280 };
const CELL = 48;
const MARGIN = 16;
const THUMBNAIL = 224;
const BORDER = 4;
const LINE = 2;
const TEXT_SCALE = 2;
const LINE_HEIGHT = 24;

export interface TilePicture {
  png: Buffer;
  /** Where the image lies in the picture: tile c of a row begins at left + ⌊c · width / columns + ½⌋. */
  image: Box;
  thumbnail: Box | undefined;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface DrawOptions {
  grid: Grid;
  /** One a tile, thumbnail last. */
  routes: TileRoute[];
  /** Pixels of the thumbnail, u8 [size, size, 3]. */
  thumbnail?: { pixels: Uint8Array; size: number };
}

/** The image's shape is kept, unless a tile would be too small for its number. */
function imageBox(image: RgbImage, { columns, rows }: Grid): Box {
  const longer = Math.max(image.width, image.height);
  const scale = Math.min(SIDE.most, Math.max(SIDE.least, longer)) / longer;
  return {
    left: MARGIN,
    top: MARGIN,
    width: Math.max(Math.round(image.width * scale), CELL * columns),
    height: Math.max(Math.round(image.height * scale), CELL * rows),
  };
}

function cellBoxes(box: Box, { columns, rows }: Grid): Box[] {
  const edge = (start: number, length: number, i: number, count: number) =>
    start + Math.round((i * length) / count);
  return Array.from({ length: columns * rows }, (_, i) => {
    const [column, row] = [i % columns, Math.floor(i / columns)];
    const left = edge(box.left, box.width, column, columns);
    const top = edge(box.top, box.height, row, rows);
    const width = edge(box.left, box.width, column + 1, columns) - left;
    return { left, top, width, height: edge(box.top, box.height, row + 1, rows) - top };
  });
}

function rect({ left, top, width, height }: Box, fill: string, opacity = 1): string {
  const at = `x="${left}" y="${top}" width="${width}" height="${height}"`;
  return `<rect ${at} fill="${fill}" fill-opacity="${opacity}"/>`;
}

/** A tint, a border inside the cell, and the number on a ground of its own in the upper left corner. */
function drawCell(cell: Box, route: TileRoute, number: number): string {
  const fill = ROUTE_COLOURS[route];
  const { left, top, width, height } = cell;
  const scale = Math.min(4, Math.max(2, Math.floor(Math.min(width, height) / 32)));
  const text = String(number);
  const [inner, pad] = [textWidth(text, scale), 2 * scale];
  const ground = { left, top, width: inner + 2 * pad, height: GLYPH_HEIGHT * scale + 2 * pad };
  return [
    rect(cell, fill, route === "tile" ? 0 : 0.15),
    rect({ ...cell, width: BORDER }, fill),
    rect({ ...cell, left: left + width - BORDER, width: BORDER }, fill),
    rect({ ...cell, height: BORDER }, fill),
    rect({ ...cell, top: top + height - BORDER, height: BORDER }, fill),
    rect(ground, fill),
    textPath(text, { x: left + pad, y: top + pad, scale, fill: "#ffffff" }),
  ].join("");
}

/** White lines between the tiles, so that they show on any picture. */
function drawLines(box: Box, cells: Box[]): string {
  const inner = (key: "left" | "top") =>
    [...new Set(cells.map((cell) => cell[key]))].filter((at) => at > box[key]);
  return [
    ...inner("left").map((at) => rect({ ...box, left: at - LINE / 2, width: LINE }, "#ffffff")),
    ...inner("top").map((at) => rect({ ...box, top: at - LINE / 2, height: LINE }, "#ffffff")),
  ].join("");
}

interface Caption {
  text: string;
  route?: TileRoute;
}

function captions(image: RgbImage, { grid, routes, thumbnail }: DrawOptions): Caption[] {
  const { columns, rows } = grid;
  const tiles = columns * rows === 1 ? "1 TILE" : `${columns} × ${rows} TILES`;
  const more = thumbnail === undefined ? "" : " AND THE THUMBNAIL";
  const title = `${image.width} × ${image.height} PIXELS: ${tiles}${more}`;
  const known = (["text", "stream"] as const).filter((route) => routes.includes(route));
  return [{ text: title }, ...known.map((route) => ({ text: LEGENDS[route] ?? "", route }))];
}

const SWATCH = GLYPH_HEIGHT * TEXT_SCALE;

function drawCaption({ text, route }: Caption, y: number): string {
  const at = { y, scale: TEXT_SCALE, fill: "#000000" };
  if (route === undefined) return textPath(text, { ...at, x: MARGIN });
  const swatch = { left: MARGIN, top: y, width: SWATCH, height: SWATCH };
  const x = MARGIN + SWATCH + 8;
  return rect(swatch, ROUTE_COLOURS[route]) + textPath(text, { ...at, x });
}

function scaled(image: RgbImage, { width, height }: Box): Promise<Buffer> {
  const raw = { width: image.width, height: image.height, channels: 3 as const };
  return sharp(image.data, { raw }).resize(width, height, { fit: "fill" }).png().toBuffer();
}

export async function drawTiles(image: RgbImage, options: DrawOptions): Promise<TilePicture> {
  const { grid, routes, thumbnail } = options;
  const box = imageBox(image, grid);
  const cells = cellBoxes(box, grid);
  const side =
    thumbnail === undefined
      ? undefined
      : { left: box.left + box.width + MARGIN, top: MARGIN, width: THUMBNAIL, height: THUMBNAIL };
  const lines = captions(image, options);
  const textTop = MARGIN + Math.max(box.height, side?.height ?? 0) + MARGIN;
  const textRight = Math.max(...lines.map(({ text }) => textWidth(text, TEXT_SCALE)));
  const right = Math.max(box.left + box.width, (side?.left ?? 0) + (side?.width ?? 0));
  const width = Math.max(right, MARGIN + SWATCH + 8 + textRight) + MARGIN;
  const height = textTop + lines.length * LINE_HEIGHT;
  const all = side === undefined ? cells : [...cells, side];
  const overlay =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    all.map((cell, i) => drawCell(cell, routes[i] ?? "tile", i + 1)).join("") +
    drawLines(box, cells) +
    lines.map((line, i) => drawCaption(line, textTop + i * LINE_HEIGHT)).join("") +
    "</svg>";
  const layers = [{ input: await scaled(image, box), left: box.left, top: box.top }];
  if (side !== undefined && thumbnail !== undefined) {
    const { pixels: data, size } = thumbnail;
    const input = await scaled({ data, width: size, height: size }, side);
    layers.push({ input, left: side.left, top: side.top });
  }
  const canvas = { width, height, channels: 3 as const, background: "#ffffff" };
  const png = await sharp({ create: canvas })
    .composite([...layers, { input: Buffer.from(overlay), left: 0, top: 0 }])
    .png()
    .toBuffer();
  return { png, image: box, thumbnail: side };
}
