/** tessera tokenize, tiles, plan: what needs no cluster. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { Option, type Command } from "commander";
import { above0, from1, whole } from "./options.js";

/** WTF-8's lone surrogates are three bytes from ED A0 80 on; each becomes one U+FFFD. */
function decodeInput(bytes: Buffer): string {
  const latin = bytes.toString("latin1").replace(/\xed[\xa0-\xbf][\x80-\xbf]/g, "\xef\xbf\xbd");
  return Buffer.from(latin, "latin1").toString("utf8");
}

function addTokenize(program: Command): void {
  program
    .command("tokenize")
    .description("stdin → token ids")
    .requiredOption("--model <dir>", "needs only the tokenizer's files")
    .option("--special", "special-token text becomes special tokens")
    .option("--json", "one line of JSON")
    .addHelpText(
      "after",
      "\nExample:\n  echo -n Hello | tessera tokenize --model models/nvlm-d-tiny --json\n",
    )
    .action(async (flags: { model: string; special?: boolean; json?: boolean }) => {
      const { loadTokenizer } = await import("@tessera/coordinator/request");
      const tokenizer = await loadTokenizer(flags.model);
      const ids = tokenizer.encode(decodeInput(await buffer(process.stdin)), {
        special: flags.special === true,
      });
      const tokens = ids.map((id) => tokenizer.token(id) ?? "");
      const plain = ids.map((id, i) => `${id}\t${tokens[i]}\n`).join("");
      process.stdout.write(flags.json === true ? `${JSON.stringify({ ids, tokens })}\n` : plain);
    });
}

interface TilesFlags {
  imageSize: number;
  maxTiles: number;
  json?: boolean;
  output?: string;
}

async function runTiles(file: string, flags: TilesFlags): Promise<void> {
  const { checkImage, decodeImage, IMAGE_LIMITS, tileImage } =
    await import("@tessera/coordinator/request");
  const data = await readFile(file);
  checkImage(data, { field: file, mediaType: "", limits: IMAGE_LIMITS });
  const image = await decodeImage(data, { field: file, limits: IMAGE_LIMITS });
  const options = { tileSize: flags.imageSize, maxTiles: flags.maxTiles, useThumbnail: true };
  const { grid, tiles } = await tileImage(image, options);
  if (flags.output !== undefined) {
    const { savePng } = await import("@tessera/coordinator/request");
    await mkdir(flags.output, { recursive: true });
    for (const [i, tile] of tiles.entries())
      await writeFile(
        join(flags.output, `tile-${i + 1}.png`),
        await savePng(tile.pixels, flags.imageSize),
      );
  }
  const plain = [`${grid[0]} × ${grid[1]} tiles`, ...tiles.map((tile) => tile.sha256)].join("\n");
  const json = JSON.stringify({ grid, tiles: tiles.map(({ sha256 }) => ({ sha256 })) });
  process.stdout.write(`${flags.json === true ? json : plain}\n`);
}

function addTiles(program: Command): void {
  program
    .command("tiles <file>")
    .description("how a picture is cut")
    .option("--image-size <pixels>", "of a tile, 1 to 4096", from1(4096), 448)
    .option("--max-tiles <count>", "without the thumbnail, 1 to 64", from1(64), 6)
    .option("-o, --output <dir>", "writes the tiles as PNG")
    .option("--json", "one line of JSON")
    .addHelpText("after", "\nExample:\n  tessera tiles page.png --json\n")
    .action(runTiles);
}

interface PlanFlags {
  model: string;
  tensorParallel: number;
  memory?: number;
  kv: "f32" | "bf16";
  maxModelLen?: number;
  json?: boolean;
}

async function runPlan(flags: PlanFlags): Promise<void> {
  const { openModel, planPlacement } = await import("@tessera/model");
  const model = await openModel(flags.model);
  await model.checkIndex();
  const { config } = model;
  const plan = planPlacement(config, {
    size: flags.tensorParallel,
    kvType: flags.kv,
    maxModelLen: flags.maxModelLen,
    memoryBytes: flags.memory === undefined ? undefined : flags.memory * 2 ** 30,
  });
  if (flags.json === true) return void process.stdout.write(`${JSON.stringify(plan)}\n`);
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const rows = plan.ranks.map((rank) =>
    [
      `rank ${rank.rank}: weights ${gb(rank.weightBytes)}`,
      `cache ${gb(rank.cacheBytes)}`,
      `workspace ${gb(rank.workspaceBytes)}`,
      `process ${gb(rank.processBytes)}`,
      `messages ${gb(rank.trafficBytes)}`,
      `${rank.feedForwardColumns} feed-forward columns`,
      `${rank.kvHeads} key-value heads`,
      ...(rank.encodes ? ["encodes"] : []),
    ].join(", "),
  );
  const { processBytes, tokenizerBytes, trafficBytes, pictureBytes } = plan.coordinator;
  const front =
    `coordinator: process ${gb(processBytes)}, tokenizer ${gb(tokenizerBytes)}, ` +
    `messages ${gb(trafficBytes)}, pictures ${gb(pictureBytes)}`;
  process.stdout.write(
    [
      `model: ${gb(plan.modelBytes.stored)} of bf16 weights with dummy heads, ${gb(plan.modelBytes.computed)} without`,
      `cache: ${plan.cacheBytesPerToken} bytes per token (${plan.kvType}), ${plan.blockCount} blocks of 32 tokens`,
      `exchange over all ranks: ${plan.exchangeBytesPerToken} bytes per token decoded alone, ` +
        `${Math.round(plan.exchangeBytesPerPromptToken)} per prompt token in steps of ${plan.maxBatchedTokens}`,
      front,
      ...rows,
      "",
    ].join("\n"),
  );
}

function addPlan(program: Command): void {
  program
    .command("plan")
    .description("which worker holds what, from config.json alone")
    .requiredOption("--model <dir>", "needs only config.json and the weight index")
    .option("--tensor-parallel <size>", "1, 2, 4 or 8", whole, 1)
    .option("--memory <GiB>", "of each worker", above0)
    .addOption(
      new Option("--kv <type>", "type of the cache").choices(["f32", "bf16"]).default("f32"),
    )
    .option("--max-model-len <tokens>", "prompt and answer (default: the model's)", whole)
    .option("--json", "one line of JSON")
    .addHelpText("after", "\nExample:\n  tessera plan --model DIR --tensor-parallel 8 --kv bf16\n")
    .action(runPlan);
}

export function addLook(program: Command): void {
  addTokenize(program);
  addTiles(program);
  addPlan(program);
}
