/** tessera plan: which worker holds what, and what an image costs as each variant. */
import { Option, type Command } from "commander";
import type { KvType, ModelFolder, PlacementPlan, RankPlan } from "@tessera/model";
import { compareImage, imageSize, imagePlanText, type ImagePlan } from "./plan-image.js";
import { above0, from1, kvOption, MAX_REQUEST_TILES, whole } from "./options.js";

interface PlanFlags {
  model: string;
  tensorParallel: number;
  memory?: number;
  kv: KvType;
  maxModelLen?: number;
  vision: "replicate" | "tensor" | "auto";
  visionWorkers?: number;
  image: { width: number; height: number };
  maxTiles?: number;
  json?: boolean;
}

const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

function rankText(rank: RankPlan): string {
  return [
    `rank ${rank.rank}: weights ${gib(rank.weightBytes)}`,
    `cache ${gib(rank.cacheBytes)}`,
    ...(rank.crossCacheBytes > 0 ? [`cross-attention cache ${gib(rank.crossCacheBytes)}`] : []),
    `workspace ${gib(rank.workspaceBytes)}`,
    `embeddings ${gib(rank.embeddingBytes)}`,
    `process ${gib(rank.processBytes)}`,
    `messages ${gib(rank.trafficBytes)}`,
    `${rank.feedForwardColumns} feed-forward columns`,
    `${rank.kvHeads} key-value heads`,
    ...(rank.encodes ? ["encodes"] : []),
  ].join(", ");
}

function placementText(plan: PlacementPlan): string[] {
  // As the model's publishers count them, in GB of 10⁹ bytes.
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const { processBytes, tokenizerBytes, trafficBytes, pictureBytes } = plan.coordinator;
  const encoders = plan.encoderCount > 0 ? `, ${plan.encoderCount} ranks only encode` : "";
  const stream =
    plan.crossBlockCount > 0
      ? `, ${plan.crossBlockCount} blocks of 32 rows of images' streams`
      : "";
  return [
    `model: ${gb(plan.modelBytes.stored)} of bf16 weights with dummy heads, ${gb(plan.modelBytes.computed)} without`,
    `vision encoder: ${plan.vision}${encoders}`,
    `cache: ${plan.cacheBytesPerToken} bytes per token (${plan.kvType}), ${plan.blockCount} blocks of 32 tokens${stream}`,
    `exchange over all ranks: ${plan.exchangeBytesPerToken} bytes per token decoded alone, ` +
      `${Math.round(plan.exchangeBytesPerPromptToken)} per prompt token in steps of ${plan.maxBatchedTokens}`,
    `coordinator: process ${gib(processBytes)}, tokenizer ${gib(tokenizerBytes)}, ` +
      `messages ${gib(trafficBytes)}, pictures ${gib(pictureBytes)}`,
    ...plan.ranks.map(rankText),
  ];
}

async function planAll(model: ModelFolder, flags: PlanFlags) {
  const { planPlacement } = await import("@tessera/model");
  const plan = planPlacement(model.config, {
    size: flags.tensorParallel,
    kvType: flags.kv,
    maxModelLen: flags.maxModelLen,
    memoryBytes: flags.memory === undefined ? undefined : flags.memory * 2 ** 30,
    vision: flags.vision,
    visionWorkers: flags.visionWorkers,
  });
  const maxTiles = flags.maxTiles ?? model.config.tile.maxTiles;
  const image: ImagePlan = await compareImage(model, plan, { ...flags.image, maxTiles });
  return { plan, image };
}

async function runPlan(flags: PlanFlags): Promise<void> {
  const { openModel } = await import("@tessera/model");
  const model = await openModel(flags.model);
  await model.checkIndex();
  const { plan, image } = await planAll(model, flags);
  const text =
    flags.json === true
      ? JSON.stringify({ ...plan, image })
      : [...placementText(plan), "", ...imagePlanText(model.config, plan, image)].join("\n");
  process.stdout.write(`${text}\n`);
}

export function addPlan(program: Command): void {
  program
    .command("plan")
    .description("which worker holds what, and what an image costs, from config.json alone")
    .requiredOption("--model <dir>", "needs only config.json and the weight index")
    .option("--tensor-parallel <size>", "1, 2, 4 or 8", whole, 1)
    .option("--memory <GiB>", "of each worker; bytes are told in GiB (2^30) too", above0)
    .addOption(kvOption())
    .option("--max-model-len <tokens>", "prompt and answer (default: the model's)", whole)
    .addOption(
      new Option("--vision <placement>", "of the encoder: on each rank, cut, or by --memory")
        .choices(["replicate", "tensor", "auto"])
        .default("auto"),
    )
    .option("--vision-workers <count>", "so many workers more that only encode tiles", whole)
    .option("--image <width>x<height>", "that D, X and H are compared by", imageSize, {
      width: 1024,
      height: 768,
    })
    .option(
      "--max-tiles <count>",
      "of that image, 1 to 12 (default: the model's)",
      from1(MAX_REQUEST_TILES),
    )
    .option("--json", "one line of JSON")
    .addHelpText(
      "after",
      "\nExample:\n  tessera plan --model DIR --tensor-parallel 8 --kv bf16 --image 1920x1080\n",
    )
    .action(runPlan);
}
