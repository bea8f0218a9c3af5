/** What a coordinator is put together from: settings of the group, limits of requests, the loop. */
import { randomBytes } from "node:crypto";
import {
  imageLayout,
  planHash,
  planPlacement,
  type ModelFolder,
  type PlacementPlan,
} from "@tessera/model";
import { KvType, VisionPlacement, WireType } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { GroupSettings } from "../cluster/group.js";
import { REQUEST_LIMITS, type PrepareContext, type Tokenizer } from "../request/index.js";
import type { LoopLimits } from "./engine-loop.js";
import { tensorParallelSize, type CoordinatorOptions } from "./options.js";

export const BUILD = "tessera 0.1.0";
export const JOIN_DEADLINE_MS = 10 * 60_000;

const VISION = {
  replicate: VisionPlacement.REPLICATE,
  tensor: VisionPlacement.TENSOR,
  workers: VisionPlacement.WORKERS,
} as const;

/** @throws ModelError when the options do not fit the model. */
export function planOf(model: ModelFolder, options: CoordinatorOptions): PlacementPlan {
  return planPlacement(model.config, {
    size: tensorParallelSize(options),
    kvType: options.kvType,
    maxModelLen: options.maxModelLen,
    cacheBytes: options.cacheMemoryBytes,
    crossCacheBytes: options.crossCacheMemoryBytes,
    embeddingBytes: options.embeddingMemoryBytes,
    maxBatchedTokens: options.maxBatchedTokens,
    maxSequences: options.maxSequences,
  });
}

export function settingsOf(
  options: CoordinatorOptions,
  modelHash: string,
  plan: PlacementPlan,
  selectableIds: number,
): GroupSettings {
  const placement = {
    kvType: options.kvType === "bf16" ? KvType.BF16 : KvType.F32,
    wireType: options.wireType === "bf16" ? WireType.BF16 : WireType.F32,
    blockCount: plan.blockCount,
    maxBatchedTokens: plan.maxBatchedTokens,
    maxSequences: plan.maxSequences,
    maxWantedRows: plan.maxWantedRows,
    maxTiles: plan.maxTiles,
    maxEmbeddings: plan.maxEmbeddings,
    collectiveDeadlineMs: options.stepDeadlineMs,
    maxModelLen: plan.maxModelLen,
    maxStepsInFlight: 1,
    selectableIds,
    vision: VISION[plan.vision],
    encoderCount: plan.encoderCount,
    maxStreamRows: plan.maxStreamRows,
    crossBlockCount: plan.crossBlockCount,
  };
  const facts = { build: BUILD, backend: "cpu", model: modelHash, size: plan.size };
  return {
    placement,
    planHash: planHash({ ...facts, ...placement }),
    modelHash,
    joinDeadlineMs: JOIN_DEADLINE_MS,
    stepDeadlineMs: options.stepDeadlineMs,
  };
}

export function contextOf(
  model: ModelFolder,
  tokenizer: Tokenizer,
  plan: PlacementPlan,
  options: CoordinatorOptions,
): PrepareContext {
  const maxChoices = Math.min(REQUEST_LIMITS.maxChoices, plan.maxSequences);
  return {
    servedName: options.servedModelName ?? model.name,
    tokenizer,
    limits: { ...REQUEST_LIMITS, maxChoices },
    maxModelLen: plan.maxModelLen,
    selectableIds: Math.min(tokenizer.size, model.config.decoder.vocabularySize),
    stopTokenIds: model.stopTokenIds,
    defaultMaxTiles: model.config.tile.maxTiles,
    randomSeed: () => randomBytes(8).readBigUInt64LE(),
    tile: model.config.tile,
    template: options.chatTemplate,
    layout: imageLayout(model.config),
    room: { tiles: plan.maxEmbeddings, crossBlocks: plan.crossBlockCount },
  };
}

export function loopLimitsOf(
  model: ModelFolder,
  plan: PlacementPlan,
  options: CoordinatorOptions,
): LoopLimits {
  const vocabulary = model.config.decoder.vocabularySize;
  return { ...plan, vocabulary, maxRequests: options.maxRequests };
}
