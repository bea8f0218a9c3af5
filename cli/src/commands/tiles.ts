/** tessera tiles: how a picture is cut, and with --explain why, and which tile goes where. */
import { mkdir, readFile, realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import type { ModelConfig } from "@tessera/model";
import type { PreparedTile, TilingOptions } from "@tessera/coordinator/request";
import { explainTiles, VARIANTS, type Explanation } from "./tiles-explain.js";
import { explanationText } from "./tiles-text.js";
import { from1, MAX_REQUEST_TILES } from "./options.js";

/** Without a model; a request to a model takes fewer. */
const MAX_TILES = 64;
const DEFAULTS = { tileSize: 448, maxTiles: 6 };

interface TilesFlags {
  imageSize?: number;
  maxTiles?: number;
  model?: string;
  variant?: keyof typeof VARIANTS;
  explain?: string;
  json?: boolean;
  output?: string;
}

function refuse(flag: string, why: string): never {
  throw new Error(`${flag}: ${why}`);
}

function tilingOf(flags: TilesFlags, config: ModelConfig | undefined): TilingOptions {
  const tile = config?.tile;
  if (tile !== undefined && flags.imageSize !== undefined && flags.imageSize !== tile.size)
    refuse(`--image-size ${flags.imageSize}`, `the tiles of --model have ${tile.size} pixels`);
  const maxTiles = flags.maxTiles ?? tile?.maxTiles ?? DEFAULTS.maxTiles;
  if ((tile ?? flags.variant) !== undefined && maxTiles > MAX_REQUEST_TILES)
    refuse(`--max-tiles ${maxTiles}`, `a request to a model takes 1 to ${MAX_REQUEST_TILES}`);
  return {
    tileSize: tile?.size ?? flags.imageSize ?? DEFAULTS.tileSize,
    maxTiles,
    useThumbnail: tile?.useThumbnail ?? true,
  };
}

/** Before anything is decoded. */
async function checkFlags(file: string, flags: TilesFlags): Promise<void> {
  const { explain, variant } = flags;
  if (explain === undefined)
    return variant === undefined ? undefined : refuse(`--variant ${variant}`, "needs --explain");
  if (!/\.png$/i.test(explain)) refuse(`--explain ${explain}`, "must end in .png");
  const [from, to] = await Promise.all(
    [file, explain].map((path) => realpath(path).catch(() => "")),
  );
  if (from !== "" && from === to) refuse(`--explain ${explain}`, "is the picture itself");
}

async function readPicture(file: string): Promise<Uint8Array> {
  return readFile(file).catch((error: unknown) =>
    refuse(file, `cannot be read: ${error instanceof Error ? error.message : String(error)}`),
  );
}

async function openConfig(dir: string | undefined): Promise<ModelConfig | undefined> {
  if (dir === undefined) return undefined;
  const { openModel } = await import("@tessera/model");
  return (await openModel(dir)).config;
}

async function saveTiles(dir: string, tiles: PreparedTile[], size: number): Promise<void> {
  const { savePng } = await import("@tessera/coordinator/request");
  await mkdir(dir, { recursive: true });
  for (const [i, tile] of tiles.entries())
    await writeFile(join(dir, `tile-${i + 1}.png`), await savePng(tile.pixels, size));
}

async function runTiles(file: string, flags: TilesFlags): Promise<void> {
  await checkFlags(file, flags);
  const { model, variant, explain: picture } = flags;
  const config = await openConfig(model);
  const options = tilingOf(flags, config);
  const { checkImage, decodeImage, IMAGE_LIMITS, tileImage } =
    await import("@tessera/coordinator/request");
  const data = await readPicture(file);
  checkImage(data, { field: file, mediaType: "", limits: IMAGE_LIMITS });
  const image = await decodeImage(data, { field: file, limits: IMAGE_LIMITS });
  const cut = await tileImage(image, options);
  if (flags.output !== undefined) await saveTiles(flags.output, cut.tiles, options.tileSize);
  const explanation =
    picture === undefined
      ? undefined
      : await explainTiles(image, cut, { file, picture, config, model, variant, options });
  const tiles = cut.tiles.map(({ sha256 }) => ({ sha256 }));
  const json = () => JSON.stringify({ grid: cut.grid, tiles, ...(explanation && { explanation }) });
  process.stdout.write(`${flags.json === true ? json() : plainText(cut, explanation)}\n`);
}

function plainText(
  { grid, tiles }: { grid: [number, number]; tiles: { sha256: string }[] },
  explanation: Explanation | undefined,
): string {
  if (explanation !== undefined) return explanationText(explanation).join("\n");
  return [`${grid[0]} × ${grid[1]} tiles`, ...tiles.map((tile) => tile.sha256)].join("\n");
}

export function addTiles(program: Command): void {
  program
    .command("tiles <file>")
    .description("how a picture is cut, and which tile goes where")
    .option(
      "--image-size <pixels>",
      "of a tile, 1 to 4096 (default: the model's, or 448)",
      from1(4096),
    )
    .option(
      "--max-tiles <count>",
      "without the thumbnail, 1 to 64, for a model 1 to 12 (default: the model's, or 6)",
      from1(MAX_TILES),
    )
    .option("--explain <png>", "draws the grid over the picture, and says why it was chosen")
    .option("--model <dir>", "whose tiles, and where they go; needs only config.json")
    .addOption(
      new Option(
        "--variant <letter>",
        "where tiles go in NVLM-D, X or H (default: the model's)",
      ).choices(Object.keys(VARIANTS)),
    )
    .option("-o, --output <dir>", "writes the tiles as PNG")
    .option("--json", "one line of JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  tessera tiles page.png --json\n" +
        "  tessera tiles page.png --explain page-tiles.png --variant H\n",
    )
    .action(runTiles);
}
