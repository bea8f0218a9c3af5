/** Flags that several commands share. */
import { InvalidArgumentError, Option, type Command } from "commander";
import type { KvType } from "@tessera/model";

export function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError("must be a whole number.");
  return value;
}

/** 0 takes a free one. */
export function port(text: string): number {
  const value = whole(text);
  if (value > 65_535) throw new InvalidArgumentError("must be a port, 0 to 65535.");
  return value;
}

/** A whole number from 1 to `limit`. */
export function from1(limit: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1 || value > limit)
      throw new InvalidArgumentError(`must be a whole number, 1 to ${limit}.`);
    return value;
  };
}

/** As MAX_IMAGE_TILES of @tessera/model, which commands load only when they run. */
export const MAX_REQUEST_TILES = 12;

export function above0(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError("must be a number above 0.");
  return value;
}

export function logLevel(fallback: string): Option {
  return new Option("--log-level <level>", "of what is written to stderr")
    .choices(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
    .default(fallback);
}

export type Transport = "auto" | "shm" | "grpc";

export function transport(): Option {
  return new Option(
    "--transport <way>",
    "of sums between workers of one machine: shm, through shared memory, and no start without; grpc; auto, memory " +
      "where a pair proves that it shares it (default: auto)",
  ).choices(["auto", "shm", "grpc"]);
}

export function kvOption(): Option {
  return new Option("--kv <type>", "type of the cache; int8 has a scale for each token and head")
    .choices(["f32", "bf16", "int8"] satisfies KvType[])
    .default("f32");
}

/** Accepted and not ended, by default. */
export const MAX_REQUESTS = 1024;

export interface PlacementFlags {
  vision?: "replicate" | "tensor" | "auto";
  visionWorkers?: number;
  maxModelLen?: number;
  cacheMemory?: number;
  crossCacheMemory?: number;
  embeddingMemory?: number;
  encodeBudgetMs?: number;
  kv: KvType;
  /** Default bf16. */
  weights?: "bf16" | "int8" | "int4";
  wire: "f32" | "bf16";
  servedModelName?: string;
  chatTemplate: "nvlm" | "qwen" | "raw";
  maxBatchedTokens?: number;
  maxSequences?: number;
  speculate?: number;
  /** Default true. */
  prefixCache?: boolean;
  maxRequests?: number;
  maxQueuedTokens?: number;
  stepDeadlineMs: number;
  resumeGraceMs?: number;
  otlpEndpoint?: string;
  logLevel: string;
}

export function weightsOption(): Option {
  return new Option(
    "--weights <type>",
    "of the decoder's linears, quantised when they are loaded; lm_head is int8 with int8 and int4, embeddings and " +
      "vision encoder stay bf16",
  )
    .choices(["bf16", "int8", "int4"])
    .default("bf16");
}

/** Where the model lies, in what types, and under what name it is asked for. */
function addPlaces(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--vision <placement>",
        "of the vision encoder: replicate, whole on each worker; tensor, cut over them; auto, by their memory " +
          "(default: auto)",
      ).choices(["replicate", "tensor", "auto"]),
    )
    .option(
      "--vision-workers <count>",
      "so many workers more that hold only the vision encoder and serve the others with it",
      whole,
    )
    .option("--max-model-len <tokens>", "prompt and answer (default: the model's)", whole)
    .option("--cache-memory <bytes>", "key-value cache of each worker", whole)
    .option(
      "--cross-cache-memory <bytes>",
      "images' keys and values on each worker, of models with cross-attention (default: 16 images)",
      whole,
    )
    .option(
      "--embedding-memory <bytes>",
      "tiles' embeddings on each worker (default: 512 MiB, at most 256 tiles)",
      whole,
    )
    .option(
      "--encode-budget-ms <ms>",
      "what a batch of tiles may take of running streams' time (default: 100)",
      whole,
    )
    .addOption(kvOption())
    .addOption(weightsOption())
    .addOption(
      new Option(
        "--wire <type>",
        "type of partial sums on the wire; bf16 gives other bits at another width or with a cut encoder",
      )
        .choices(["f32", "bf16"])
        .default("f32"),
    )
    .option("--served-model-name <name>", "default: the folder's name")
    .addOption(
      new Option("--chat-template <name>", "nvlm: the reference's; qwen: the tokenizer's own")
        .choices(["nvlm", "qwen", "raw"])
        .default("nvlm"),
    );
}

/** What is computed in a step, what waits, and for how long. */
function addSteps(command: Command): Command {
  return command
    .option("--max-batched-tokens <tokens>", "tokens computed in one step at most", whole)
    .option("--max-sequences <count>", "sequences that run together at most", whole)
    .option(
      "--speculate <tokens>",
      "guess so many next tokens of a stream where its text repeats itself or its prompt, and verify them in one " +
        "step; answers stay the same (default: 0, at most 16)",
      whole,
    )
    .option("--no-prefix-cache", "full blocks of a prompt are not kept for later requests")
    .option("--max-requests <count>", `accepted and not ended (default: ${MAX_REQUESTS})`, whole)
    .option(
      "--max-queued-tokens <tokens>",
      "of prompts that wait, at most (default: 64 times --max-model-len)",
      whole,
    )
    .option("--step-deadline-ms <ms>", "after which a silent worker is lost", whole, 30_000)
    .option(
      "--resume-grace-ms <ms>",
      "what a resumable stream without a reader has left (default: 30000)",
      whole,
    )
    .option(
      "--otlp-endpoint <url>",
      "of an OpenTelemetry collector, as http://127.0.0.1:4318 (default: nothing is traced)",
    )
    .addOption(logLevel("warn"));
}

export function addPlacement(command: Command): Command {
  return addSteps(addPlaces(command));
}

const CLUSTER_FLAGS = [
  "vision",
  "visionWorkers",
  "workers",
  "threads",
  "maxModelLen",
  "cacheMemory",
  "crossCacheMemory",
  "embeddingMemory",
  "encodeBudgetMs",
  "kv",
  "weights",
  "wire",
  "servedModelName",
  "chatTemplate",
  "maxBatchedTokens",
  "maxSequences",
  "speculate",
  "prefixCache",
  "maxRequests",
  "maxQueuedTokens",
  "stepDeadlineMs",
  "resumeGraceMs",
  "otlpEndpoint",
];

/** A running server has its own settings: those of a cluster are refused beside `--server`, not passed over. */
export function refuseBesideServer(flags: { server?: string }, command: Command): void {
  if (flags.server === undefined) return;
  const said = command.options
    .filter((option) => CLUSTER_FLAGS.includes(option.attributeName()))
    .filter((option) => command.getOptionValueSource(option.attributeName()) === "cli")
    .map((option) => option.long);
  if (said.length > 0)
    throw new Error(
      `${command.name()}: ${said.join(", ")}: of a cluster, which --server has already`,
    );
}

/** The same flags as arguments of a child process. */
export function placementArgs(flags: PlacementFlags): string[] {
  const pairs: [string, string | number | undefined][] = [
    ["--vision", flags.vision],
    ["--vision-workers", flags.visionWorkers],
    ["--max-model-len", flags.maxModelLen],
    ["--cache-memory", flags.cacheMemory],
    ["--cross-cache-memory", flags.crossCacheMemory],
    ["--embedding-memory", flags.embeddingMemory],
    ["--encode-budget-ms", flags.encodeBudgetMs],
    ["--kv", flags.kv],
    ["--weights", flags.weights],
    ["--wire", flags.wire],
    ["--served-model-name", flags.servedModelName],
    ["--chat-template", flags.chatTemplate],
    ["--max-batched-tokens", flags.maxBatchedTokens],
    ["--max-sequences", flags.maxSequences],
    ["--speculate", flags.speculate],
    ["--max-requests", flags.maxRequests],
    ["--max-queued-tokens", flags.maxQueuedTokens],
    ["--step-deadline-ms", flags.stepDeadlineMs],
    ["--resume-grace-ms", flags.resumeGraceMs],
    ["--otlp-endpoint", flags.otlpEndpoint],
    ["--log-level", flags.logLevel],
  ];
  const args = pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)]));
  return flags.prefixCache === false ? [...args, "--no-prefix-cache"] : args;
}
