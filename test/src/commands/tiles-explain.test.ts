/** `tessera tiles --explain`: what is drawn, read as pixels, and what is said of it. */
import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { decodeImage, IMAGE_LIMITS, ROUTE_COLOURS } from "@tessera/coordinator/request";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

interface Range {
  start: number;
  count: number;
}
interface Tile {
  tile: number;
  tagText: string;
  tagIds?: number[];
  tag?: Range;
  rows?: Range;
  streamTag?: Range;
  streamRows?: Range;
}
interface Told {
  grid: number[];
  tiles: { sha256: string }[];
  explanation: {
    picture: string;
    tileSize: number;
    maxTiles: number;
    tokenizer: string;
    choice: { ratio: number; patches: number; candidates: { columns: number; chosen: boolean }[] };
    sizes: { modelType: string; decoderTokens: number; streamRows: number }[];
    placement?: { modelType: string; sight?: string; tiles: Tile[] };
  };
}

const folder = await mkdtemp(join(tmpdir(), "tessera-explain-"));
after(() => rm(folder, { recursive: true }));
const photo = root("test/goldens/resize/photo.png");
const png = join(folder, "explained.png");
const range = (start: number, count: number) => ({ start, count });

async function explain(...args: string[]): Promise<Told> {
  const all = ["tiles", photo, "--explain", png, "--json", ...args];
  const { code, stdout, stderr } = await tessera(all);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Told;
}

async function text(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await tessera(["tiles", photo, "--explain", png, ...args]);
  assert.equal(code, 0, stderr);
  return stdout;
}

/** Colours of the picture last drawn. */
async function drawn() {
  const options = { field: png, limits: IMAGE_LIMITS };
  const { data, width, height } = await decodeImage(await readFile(png), options);
  const at = (x: number, y: number) => {
    const from = 3 * (y * width + x);
    return `#${Buffer.from(data.subarray(from, from + 3)).toString("hex")}`;
  };
  return { at, width, height };
}

/** The photo of 180 × 121 is drawn 640 wide and 430 high, 16 from the edges, the thumbnail 16 beside it. */
const WIDE = { left: 16, width: 640, height: 430 };
const CELLS = [0, 1, 2].flatMap((column) => [0, 1].map((row) => ({ column, row })));

async function borders() {
  const { at } = await drawn();
  const cells = CELLS.map(({ column, row }) =>
    at(WIDE.left + Math.round((column * 640) / 3) + 100, 16 + 215 * row + 2),
  );
  return { cells: [...new Set(cells)], thumbnail: at(672 + 100, 17) };
}

test("tiles --explain: the grid lies where the tiles are cut, white between them", async () => {
  const { grid } = await explain();
  assert.deepEqual(grid, [3, 2]);
  const { at } = await drawn();
  const lines = [229, 443];
  for (const x of lines) {
    assert.deepEqual([at(x - 1, 100), at(x, 100)], ["#ffffff", "#ffffff"]);
    assert.deepEqual([at(x - 3, 100), at(x + 2, 100)], [ROUTE_COLOURS.tile, ROUTE_COLOURS.tile]);
  }
  assert.deepEqual([at(120, 230), at(120, 231)], ["#ffffff", "#ffffff"]);
  const { cells, thumbnail } = await borders();
  assert.deepEqual([cells, thumbnail], [[ROUTE_COLOURS.tile], ROUTE_COLOURS.tile]);
});

const { text: blue, stream: orange } = ROUTE_COLOURS;
for (const [letter, cell, corner] of [
  ["D", blue, blue],
  ["X", orange, orange],
  ["H", orange, blue],
] as const)
  test(`tiles --variant ${letter}: tiles have the colour of where their rows go`, async () => {
    await explain("--variant", letter);
    const { cells, thumbnail } = await borders();
    assert.deepEqual([cells, thumbnail], [[cell], corner]);
  });

test("tiles --variant D: every tile's rows stand in the text behind its tag", async () => {
  const { explanation } = await explain("--variant", "D");
  const { modelType, sight, tiles = [] } = explanation.placement ?? {};
  assert.deepEqual([modelType, sight, tiles.length], ["NVLM_D", undefined, 7]);
  assert.deepEqual(tiles[0], {
    tile: 1,
    tagText: "<tile_1>",
    tag: range(0, 6),
    rows: range(6, 256),
  });
  assert.deepEqual(tiles[1]?.rows, range(267, 256));
  assert.ok(tiles.every(({ streamRows }) => streamRows === undefined));
});

test("tiles --variant X: tags in the text, all tiles in the stream, the thumbnail last", async () => {
  const { explanation } = await explain("--variant", "X");
  const { tiles = [], sight } = explanation.placement ?? {};
  assert.equal(sight, "own tile at tags, then all");
  assert.deepEqual(
    tiles.map(({ streamRows }) => streamRows?.start),
    [0, 256, 512, 768, 1024, 1280, 1536],
  );
  const last = { tile: 7, tagText: "<tile_global_thumbnail>" };
  assert.deepEqual(tiles[6], { ...last, tag: range(31, 5), streamRows: range(1536, 256) });
});

test("tiles --variant H: the thumbnail in the text, regular tiles behind their tags in the stream", async () => {
  const { explanation } = await explain("--variant", "H");
  const { tiles = [], sight } = explanation.placement ?? {};
  assert.equal(sight, "all");
  const second = { streamTag: range(261, 5), streamRows: range(266, 256) };
  assert.deepEqual(tiles[1], { tile: 2, tagText: "<tile_2>", ...second });
  const last = { tag: range(0, 6), rows: range(6, 256) };
  assert.deepEqual(tiles[6], { tile: 7, tagText: "<tile_global_thumbnail>", ...last });
});

test("tiles --explain: without a variant it counts all three, and places none", async () => {
  const { explanation } = await explain();
  assert.equal(explanation.placement, undefined);
  assert.deepEqual(
    explanation.sizes.map(({ decoderTokens, streamRows }) => [decoderTokens, streamRows]),
    [
      [1831, 0],
      [39, 1792],
      [265, 1566],
    ],
  );
  const { choice, tileSize, maxTiles, tokenizer, picture } = explanation;
  assert.deepEqual([choice.patches, tileSize, maxTiles, tokenizer], [7, 448, 6, "public"]);
  assert.deepEqual([choice.candidates[0]?.columns, picture], [3, png]);
});

test("tiles --model: its tile size, its variant and its tokenizer; config.json alone will do", async () => {
  const { explanation, tiles } = await explain("--model", root("models/nvlm-h-tiny"));
  assert.deepEqual([explanation.tileSize, explanation.tokenizer], [112, "model"]);
  const [first] = explanation.placement?.tiles ?? [];
  assert.equal(explanation.placement?.modelType, "NVLM_H");
  assert.deepEqual(first?.tagIds?.length, first?.streamTag?.count);
  assert.deepEqual(first?.streamRows?.count, 16);
  const alone = join(folder, "alone");
  await mkdir(alone);
  await cp(root("models/nvlm-h-tiny/config.json"), join(alone, "config.json"));
  const other = await explain("--model", alone, "--variant", "D");
  assert.deepEqual([other.explanation.tokenizer, other.tiles], ["public", tiles]);
  assert.equal(other.explanation.placement?.modelType, "NVLM_D");
  assert.equal(other.explanation.placement?.tiles[0]?.tagIds, undefined);
});

test("tiles --explain: the text has the picture's size, the grids near it, and where tiles go", async () => {
  const told = await text("--variant", "X");
  assert.match(told, /photo\.png: 180 × 121 pixels, ratio 1\.488$/m);
  assert.match(told, /^ {2}3 × 2 +6 +1\.500 +0\.012 +chosen$/m);
  assert.match(told, /^ {2}1 × 1 +1 +1\.000 +0\.488$/m);
  assert.match(told, /1344 × 896 pixels, cut into 6 tiles, and the thumbnail: 7 patches$/m);
  assert.match(told, /^ {2}NVLM_D +1831 +–$/m);
  assert.match(told, /^ {2}3 +<tile_3> +tag 11–15 +rows 512–767$/m);
  assert.match(told, /a tag's tokens see their own tile's rows, later tokens all rows/);
  assert.match(told, /drawn in .*explained\.png$/m);
});

test("tiles --explain: a tile's size of no whole rows is drawn, and its tokens are not counted", async () => {
  assert.match(await text("--image-size", "100"), /no whole rows: no tokens are counted/);
});

const tiny = root("models/nvlm-d-tiny");
const refused: [string, string[], RegExp][] = [
  ["an unknown variant", ["--variant", "Q"], /--variant.*'Q'.*D, X, H/],
  ["another file type", ["--explain", "tiles.jpg"], /--explain tiles\.jpg: must end in \.png/],
  ["the picture itself", ["--explain", photo], /--explain .*photo\.png: is the picture itself/],
  ["a folder that is not there", ["--explain", "/nowhere/a.png"], /\/nowhere\/a\.png: cannot be w/],
  ["a model that is not there", ["--model", "/nowhere"], /\/nowhere\/config\.json: cannot be read/],
  ["another size than the model's", ["--model", tiny, "--image-size", "448"], /448: .* 112 pixels/],
  ["13 tiles of a model", ["--model", tiny, "--max-tiles", "13"], /--max-tiles 13: .* 1 to 12/],
  ["13 tiles of a variant", ["--variant", "X", "--max-tiles", "13"], /--max-tiles 13: .* 1 to 12/],
  [
    "no whole rows",
    ["--variant", "X", "--image-size", "450"],
    /--image-size 450: .*multiple of 28/,
  ],
];
for (const [name, args, message] of refused)
  test(`tiles --explain: ${name} is refused`, async () => {
    const path = join(folder, "refused.png");
    const { code, stdout, stderr } = await tessera(["tiles", photo, "--explain", path, ...args]);
    assert.equal(code, 1, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, message);
    await assert.rejects(stat(path), { code: "ENOENT" });
  });

test("tiles: a variant without --explain, and files that cannot be read, are refused by name", async () => {
  const cases: [string[], RegExp][] = [
    [[photo, "--variant", "X"], /--variant X: needs --explain/],
    [[root("docs"), "--explain", png], /docs: cannot be read: EISDIR/],
    [["/nowhere/page.png", "--explain", png], /\/nowhere\/page\.png: cannot be read: ENOENT/],
    [["--explain", photo], /missing required argument 'file'/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await tessera(["tiles", ...args]);
    assert.equal(code, 1);
    assert.match(stderr, message);
  }
});
