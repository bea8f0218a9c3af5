/** What a placement costs: bytes of weights, cache and workspace of each rank, bytes exchanged per token. */
import { createHash } from "node:crypto";
import { rankProgram } from "./architectures/index.js";
import type { ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import {
  BLOCK_TOKENS,
  cacheRowBytes,
  exchangeBytes,
  weightBytes,
  workspaceBytes,
  type KvType,
} from "./estimate.js";
import {
  checkBytes,
  chooseCrossBlocks,
  chooseEmbeddings,
  embeddingBytes,
  streamRows,
} from "./image-room.js";
import { checkTensorParallelSize } from "./lanes.js";
import type { Cut } from "./architectures/pieces.js";
import { canCutVision, checkTensorVision } from "./architectures/vision.js";
import type { VisionPlacement } from "./program.js";
import { tensorShapes } from "./tensors.js";

/** Resident bytes of a worker process that waits, before anything is loaded; measured with Node 20 on x86-64. */
export const PROCESS_BYTES = 95 << 20;
/** Of a coordinator that waits, without its tokenizer; measured likewise. */
export const COORDINATOR_BYTES = 95 << 20;
/** The coordinator's tables of one token id; measured with 151,646 ids. */
const TOKENIZER_BYTES = 900;
/** Pictures at once (coordinator, MAX_PREPARING), of 4 megapixels of RGB, and each cut into tiles. */
const PICTURES = { count: 4, bytes: 3 * (4 << 20) };
/**
 * What messages take until they are collected, measured under load: plans and results in a worker, frames to and from
 * peers where there are some (V8 collects when 32 MiB of buffers are new), requests and events in the coordinator.
 */
const TRAFFIC_BYTES = { worker: 16 << 20, exchange: 40 << 20, coordinator: 24 << 20 };

/** Ranks that only encode tiles. */
const MAX_ENCODERS = 64;

export interface PlacementOptions {
  size: number;
  kvType: KvType;
  maxModelLen?: number | undefined;
  /** For the cache of each rank. */
  cacheBytes?: number | undefined;
  /** Of each worker: what weights, workspace and process leave goes to the cache. */
  memoryBytes?: number | undefined;
  maxBatchedTokens?: number | undefined;
  maxSequences?: number | undefined;
  /** Guessed tokens of one sequence in a step; their results are wanted too. */
  draftTokens?: number | undefined;
  /** Default `auto`: replicate where it fits `memoryBytes`. */
  vision?: "replicate" | "tensor" | "auto" | undefined;
  /** Ranks beyond `size` that only encode tiles. */
  visionWorkers?: number | undefined;
  /** For images' keys and values on each rank; default: of CROSS_IMAGES of the largest size. */
  crossCacheBytes?: number | undefined;
  /** Of image embeddings that each rank holds. */
  embeddingBytes?: number | undefined;
}

export interface RankPlan {
  rank: number;
  weightBytes: number;
  cacheBytes: number;
  /** Of keys and values of images' streams; 0 without cross-attention. */
  crossCacheBytes: number;
  workspaceBytes: number;
  /** Of tiles' embeddings. */
  embeddingBytes: number;
  /** Of the process that waits. */
  processBytes: number;
  /** Of messages on their way. */
  trafficBytes: number;
  feedForwardColumns: number;
  kvHeads: number;
  encodes: boolean;
}

/** The coordinator holds a tokenizer, no weights and no cache. */
export interface CoordinatorPlan {
  processBytes: number;
  tokenizerBytes: number;
  trafficBytes: number;
  /** Pictures that are decoded and cut at once. */
  pictureBytes: number;
}

export interface PlacementPlan {
  size: number;
  kvType: KvType;
  blockCount: number;
  maxModelLen: number;
  maxBatchedTokens: number;
  maxSequences: number;
  /** A row for each sequence, and for the guesses of one; more guesses where fewer sequences run. */
  maxWantedRows: number;
  maxTiles: number;
  /** Tiles whose embeddings each rank holds at most. */
  maxEmbeddings: number;
  vision: VisionPlacement;
  /** The last so many of `ranks` only encode tiles. */
  encoderCount: number;
  /** Rows of images' streams whose keys and values one step computes; 0 without cross-attention. */
  maxStreamRows: number;
  /** Blocks of 32 stream rows in the cross cache; 0 without cross-attention. */
  crossBlockCount: number;
  ranks: RankPlan[];
  coordinator: CoordinatorPlan;
  /** Over all ranks. */
  cacheBytesPerToken: number;
  /** Sent by all ranks for a token that is decoded alone (and sees an image), f32 on the wire. */
  exchangeBytesPerToken: number;
  /** The same for a prompt token, in steps of `maxBatchedTokens`. */
  exchangeBytesPerPromptToken: number;
  /** The same for the embeddings of a tile. */
  exchangeBytesPerTile: number;
  /** bf16 bytes of the checkpoint, with and without dummy heads. */
  modelBytes: { stored: number; computed: number };
}

function cacheBytesPerToken(config: ModelConfig, kvHeads: number, kvType: KvType): number {
  const { layers, headDim } = config.decoder;
  return cacheRowBytes({ layers, kvHeads, headDim }, kvType);
}

function exchangePerToken(config: ModelConfig, size: number, maxBatchedTokens: number) {
  const { step } = rankProgram(config, { rank: 0, size });
  const bytes = (rows: number) => exchangeBytes(step, { size, rows, wireType: "f32" });
  return {
    exchangeBytesPerToken: bytes(1),
    exchangeBytesPerPromptToken: bytes(maxBatchedTokens) / maxBatchedTokens,
  };
}

function modelBytes(config: ModelConfig) {
  const stored = [...tensorShapes(config).values()]
    .map((shape) => 2 * shape.reduce((product, n) => product * n, 1))
    .reduce((sum, bytes) => sum + bytes, 0);
  const { hiddenSize, heads, storedHeads, headDim, layers } = config.vision;
  const dummy = (storedHeads - heads) * headDim;
  return { stored, computed: stored - 2 * layers * (4 * dummy * hiddenSize + 2 * dummy) };
}

function checkModelLen(config: ModelConfig, options: PlacementOptions): number {
  const limit = config.decoder.maxPositionEmbeddings;
  const length = options.maxModelLen ?? limit;
  if (!Number.isSafeInteger(length) || length < 1 || length > limit)
    throw new ModelError("INVALID_ARGUMENT", `max-model-len ${length}: must be 1…${limit}`);
  return length;
}

interface Limits {
  crossBlockCount: number;
  maxEmbeddings: number;
  maxStreamRows: number;
  maxModelLen: number;
  maxBatchedTokens: number;
  maxSequences: number;
  maxWantedRows: number;
  maxTiles: number;
}

function rankPlan(
  config: ModelConfig,
  options: PlacementOptions,
  limits: Limits,
  cut: Cut,
): RankPlan {
  const program = rankProgram(config, cut);
  const decodes = cut.rank < cut.size;
  const { maxBatchedTokens: token, maxWantedRows: wanted, maxTiles: tile } = limits;
  const { maxStreamRows: stream } = limits;
  const peers = cut.size > 1 || cut.vision === "workers";
  const rope = limits.maxModelLen * program.cache.headDim * 4;
  const down = program.step.weights.find((weight) => weight.name.endsWith("mlp.down_proj.weight"));
  return {
    rank: cut.rank,
    weightBytes: weightBytes(program.encode.weights) + weightBytes(program.step.weights),
    cacheBytes: 0,
    crossCacheBytes:
      limits.crossBlockCount * BLOCK_TOKENS * cacheRowBytes(program.crossCache, options.kvType),
    workspaceBytes:
      rope +
      Math.max(
        workspaceBytes(program.step, { token, wanted, tile: 0, stream: 0 }),
        workspaceBytes(program.encode, { token: 0, wanted: 0, tile, stream: 0 }),
        workspaceBytes(program.stream, { token: 0, wanted: 0, tile: 0, stream }),
      ),
    embeddingBytes: decodes ? limits.maxEmbeddings * embeddingBytes(config) : 0,
    processBytes: PROCESS_BYTES,
    trafficBytes: TRAFFIC_BYTES.worker + (peers ? TRAFFIC_BYTES.exchange : 0),
    feedForwardColumns: down?.kind === "linear" ? down.inputs : 0,
    kvHeads: program.cache.kvHeads,
    encodes: program.encode.segments.length > 0,
  };
}

/** Everything a rank needs. */
export function rankBytes(rank: RankPlan): number {
  return takenBytes(rank) + rank.cacheBytes;
}

/** What a rank needs beside its key-value cache. */
function takenBytes(rank: RankPlan): number {
  const { weightBytes, workspaceBytes, crossCacheBytes, embeddingBytes } = rank;
  return (
    weightBytes +
    workspaceBytes +
    crossCacheBytes +
    embeddingBytes +
    rank.processBytes +
    rank.trafficBytes
  );
}

function rankPlans(
  config: ModelConfig,
  options: PlacementOptions,
  limits: Limits,
  vision: VisionPlacement,
): RankPlan[] {
  const count = options.size + (vision === "workers" ? (options.visionWorkers ?? 0) : 0);
  return Array.from({ length: count }, (_, rank) =>
    rankPlan(config, options, limits, { rank, size: options.size, vision }),
  );
}

/** Of one sequence of the largest length, on the rank with the most heads. */
function sequenceCacheBytes(
  config: ModelConfig,
  options: PlacementOptions,
  { maxModelLen }: Limits,
  ranks: RankPlan[],
): number {
  const blocks = Math.ceil(maxModelLen / BLOCK_TOKENS);
  const kvHeads = Math.max(...ranks.map((rank) => rank.kvHeads));
  return blocks * BLOCK_TOKENS * cacheBytesPerToken(config, kvHeads, options.kvType);
}

/**
 * `auto`: whole on every worker where that leaves room for one sequence, else cut where it can be.
 * @throws ModelError INVALID_ARGUMENT
 */
function chooseVision(
  config: ModelConfig,
  options: PlacementOptions,
  limits: Limits,
): VisionPlacement {
  const { vision = "auto", visionWorkers, memoryBytes, size } = options;
  if (visionWorkers !== undefined) {
    if (!Number.isSafeInteger(visionWorkers) || visionWorkers < 1 || visionWorkers > MAX_ENCODERS)
      throw new ModelError(
        "INVALID_ARGUMENT",
        `vision-workers ${visionWorkers}: must be 1…${MAX_ENCODERS}`,
      );
    if (vision === "auto") return "workers";
    throw new ModelError(
      "INVALID_ARGUMENT",
      `vision ${vision} beside vision-workers ${visionWorkers}: the encoder lies on one or the other`,
    );
  }
  if (vision === "tensor") checkTensorVision(config, size);
  if (vision !== "auto") return vision;
  const whole = rankPlans(config, options, limits, "replicate");
  const needed =
    Math.max(...whole.map(takenBytes)) + sequenceCacheBytes(config, options, limits, whole);
  if (memoryBytes === undefined || needed <= memoryBytes) return "replicate";
  return size > 1 && canCutVision(config, size) ? "tensor" : "replicate";
}

/** Sent by all ranks for the embeddings of one tile. */
function exchangePerTile(config: ModelConfig, size: number, vision: VisionPlacement): number {
  if (vision !== "tensor") return embeddingBytes(config) * (vision === "workers" ? size : size - 1);
  const { encode } = rankProgram(config, { rank: 0, size, vision });
  return exchangeBytes(encode, { size, rows: 1, wireType: "f32" });
}

/** @throws ModelError INVALID_ARGUMENT where the encoder does not fit the ranks that hold nothing else. */
function checkEncoders(
  { size, memoryBytes = Infinity }: PlacementOptions,
  ranks: RankPlan[],
): void {
  for (const rank of ranks.slice(size))
    if (takenBytes(rank) > memoryBytes)
      throw new ModelError(
        "INVALID_ARGUMENT",
        `memory of ${memoryBytes} bytes a rank: rank ${rank.rank}, which only encodes tiles, takes ${takenBytes(rank)}`,
      );
}

/** Cache for a quarter of the sequences at full length, when nothing else is said; at least one sequence. */
function chooseBlocks(
  config: ModelConfig,
  options: PlacementOptions,
  limits: Limits,
  ranks: RankPlan[],
): number {
  const perSequence = Math.ceil(limits.maxModelLen / BLOCK_TOKENS);
  const sequenceBytes = sequenceCacheBytes(config, options, limits, ranks);
  const decoders = ranks.filter((rank) => rank.kvHeads > 0);
  const taken = Math.max(...decoders.map(takenBytes));
  const memory = options.memoryBytes;
  const bytes = options.cacheBytes ?? (memory === undefined ? undefined : memory - taken);
  const blocks =
    bytes === undefined
      ? perSequence * Math.max(1, Math.ceil(limits.maxSequences / 16))
      : Math.floor(bytes / (sequenceBytes / perSequence));
  if (blocks >= perSequence) return blocks;
  const given =
    options.cacheBytes === undefined
      ? `memory of ${memory ?? 0} bytes a rank: weights, workspace and process take ${taken}`
      : `cache of ${options.cacheBytes} bytes a rank`;
  throw new ModelError(
    "INVALID_ARGUMENT",
    `${given}; the cache of one sequence of ${limits.maxModelLen} tokens needs ` +
      `${sequenceBytes}; give more memory, or a smaller max-model-len`,
  );
}

function pictureBytes({ tile }: ModelConfig): number {
  return PICTURES.count * (PICTURES.bytes + (tile.maxTiles + 1) * 3 * tile.size ** 2);
}

/** @throws ModelError INVALID_ARGUMENT when size, length or memory do not fit the model. */
export function planPlacement(config: ModelConfig, options: PlacementOptions): PlacementPlan {
  checkTensorParallelSize(config, options.size);
  checkBytes("cache-memory", options.cacheBytes);
  checkBytes("memory", options.memoryBytes);
  const maxModelLen = checkModelLen(config, options);
  const { maxSequences = 64 } = options;
  const limits: Limits = {
    maxModelLen,
    maxBatchedTokens: options.maxBatchedTokens ?? Math.min(2048, Math.max(512, maxModelLen)),
    maxSequences,
    maxWantedRows: maxSequences + (options.draftTokens ?? 0),
    maxTiles: config.tile.maxTiles + 2,
    maxStreamRows: streamRows(config),
    crossBlockCount: chooseCrossBlocks(config, options),
    maxEmbeddings: chooseEmbeddings(config, options.embeddingBytes),
  };
  const vision = chooseVision(config, options, limits);
  const ranks = rankPlans(config, options, limits, vision);
  checkEncoders(options, ranks);
  const blockCount = chooseBlocks(config, options, limits, ranks);
  const tokens = blockCount * BLOCK_TOKENS;
  return {
    ...limits,
    size: options.size,
    kvType: options.kvType,
    blockCount,
    vision,
    encoderCount: ranks.length - options.size,
    ranks: ranks.map((rank) => ({
      ...rank,
      cacheBytes: tokens * cacheBytesPerToken(config, rank.kvHeads, options.kvType),
    })),
    coordinator: {
      processBytes: COORDINATOR_BYTES,
      tokenizerBytes: TOKENIZER_BYTES * config.decoder.vocabularySize,
      trafficBytes: TRAFFIC_BYTES.coordinator,
      pictureBytes: pictureBytes(config),
    },
    cacheBytesPerToken: cacheBytesPerToken(config, config.decoder.kvHeads, options.kvType),
    ...exchangePerToken(config, options.size, limits.maxBatchedTokens),
    exchangeBytesPerTile: exchangePerTile(config, options.size, vision),
    modelBytes: modelBytes(config),
  };
}

/** What coordinator and workers must agree on, as hex SHA-256. */
export function planHash(facts: Record<string, string | number>): string {
  return createHash("sha256")
    .update(JSON.stringify(Object.entries(facts).sort(([a], [b]) => (a < b ? -1 : 1))))
    .digest("hex");
}
