import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { textPath, textWidth } from "./bitmap-font.js";
import { drawTiles, ROUTE_COLOURS, type Box, type TileRoute } from "./tile-picture.js";

const GREY = 128;

/** One colour: what is drawn over it is seen. */
function plain(width: number, height: number) {
  return { width, height, data: new Uint8Array(3 * width * height).fill(GREY) };
}

async function pixelsOf(png: Buffer) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  const at = (x: number, y: number) => {
    const from = info.channels * (y * info.width + x);
    return `#${data.subarray(from, from + 3).toString("hex")}`;
  };
  return { at, width: info.width, height: info.height };
}

const GRIDS: [number, number, number, number][] = [
  [1, 1, 300, 300],
  [3, 2, 640, 480],
  [2, 3, 900, 1200],
  [6, 1, 3000, 500],
  [1, 6, 500, 3000],
  [1, 6, 90, 16000],
  [2, 3, 2, 3],
  [8, 8, 200, 200],
];

function routesOf(tiles: number): TileRoute[] {
  return [...Array<TileRoute>(tiles).fill("stream"), "text"];
}

const thumbnail = { pixels: new Uint8Array(3 * 4 * 4).fill(GREY), size: 4 };

/** Left edges of columns and of what follows the last. */
function edges(start: number, length: number, count: number): number[] {
  return Array.from({ length: count + 1 }, (_, i) => start + Math.round((i * length) / count));
}

for (const [columns, rows, width, height] of GRIDS)
  test(`drawTiles: ${columns} × ${rows} tiles over ${width} × ${height} pixels: lines between, colours inside`, async () => {
    const grid = { columns, rows };
    const routes = routesOf(columns * rows);
    const picture = await drawTiles(plain(width, height), { grid, routes, thumbnail });
    const { at } = await pixelsOf(picture.png);
    const { image } = picture;
    const across = edges(image.left, image.width, columns);
    const down = edges(image.top, image.height, rows);
    const middle = image.top + Math.round(image.height / rows / 2);
    for (const x of across.slice(1, -1)) {
      assert.deepEqual([at(x - 1, middle), at(x, middle)], ["#ffffff", "#ffffff"]);
      assert.deepEqual([at(x - 3, middle), at(x + 2, middle)], Array(2).fill(ROUTE_COLOURS.stream));
    }
    const centre = image.left + Math.round(image.width / columns / 2);
    for (const y of down.slice(1, -1)) {
      assert.deepEqual([at(centre, y - 1), at(centre, y)], ["#ffffff", "#ffffff"]);
      assert.deepEqual([at(centre, y - 3), at(centre, y + 2)], Array(2).fill(ROUTE_COLOURS.stream));
    }
    assert.equal(at(image.left, image.top), ROUTE_COLOURS.stream);
    const box = picture.thumbnail ?? assert.fail("no thumbnail");
    assert.equal(at(box.left + 1, box.top + 100), ROUTE_COLOURS.text);
  });

/** White pixels of a number's ground, as text. */
function dots(at: (x: number, y: number) => string, { left, top }: Box, scale: number): string[] {
  const first = 2 * scale;
  return Array.from({ length: 7 }, (_, y) =>
    Array.from({ length: 5 }, (_, x) =>
      at(left + first + x * scale, top + first + y * scale) === "#ffffff" ? "#" : ".",
    ).join(""),
  );
}

test("drawTiles: a tile's number stands in its upper left corner, white on its colour", async () => {
  const grid = { columns: 2, rows: 1 };
  const routes: TileRoute[] = ["tile", "tile"];
  const { png, image } = await drawTiles(plain(1280, 640), { grid, routes });
  const { at } = await pixelsOf(png);
  const one = dots(at, image, 4);
  const two = dots(at, { ...image, left: image.left + 640 }, 4);
  assert.deepEqual(one, ["..#..", ".##..", "..#..", "..#..", "..#..", "..#..", ".###."]);
  assert.deepEqual(two, [".###.", "#...#", "....#", "...#.", "..#..", ".#...", "#####"]);
  assert.equal(at(image.left + 5, image.top + 5), ROUTE_COLOURS.tile);
});

test("drawTiles: a tint where a route is known, none where it is not", async () => {
  const grid = { columns: 1, rows: 1 };
  const middle = async (route: TileRoute) => {
    const { png } = await drawTiles(plain(640, 640), { grid, routes: [route] });
    return (await pixelsOf(png)).at(336, 336);
  };
  assert.equal(await middle("tile"), "#808080");
  const [text, stream] = [await middle("text"), await middle("stream")];
  assert.equal(new Set(["#808080", text, stream]).size, 3);
});

test("drawTiles: the legend names the colours that are used", async () => {
  const grid = { columns: 2, rows: 1 };
  const swatches = async (routes: TileRoute[]) => {
    const { png, image } = await drawTiles(plain(640, 320), { grid, routes });
    const { at, height } = await pixelsOf(png);
    const below = image.top + image.height;
    const column = Array.from({ length: height - below }, (_, y) => at(20, below + y));
    return Object.values(ROUTE_COLOURS).filter((colour) => column.includes(colour));
  };
  const { text, stream } = ROUTE_COLOURS;
  assert.deepEqual(await swatches(["tile", "tile"]), []);
  assert.deepEqual(await swatches(["text", "text"]), [text]);
  assert.deepEqual(await swatches(["stream", "text"]), [text, stream]);
});

test("textPath: ten digits of ten shapes; a letter without a glyph is refused", () => {
  const at = { x: 0, y: 0, scale: 1, fill: "#000000" };
  assert.equal(new Set([..."0123456789"].map((digit) => textPath(digit, at))).size, 10);
  assert.throws(() => textPath("ß", at), /no glyph for "ß"/);
  assert.deepEqual([textWidth("", 2), textWidth("1", 2), textWidth("12", 2)], [0, 10, 22]);
});
