/** What a coordinator is put together from: settings of the group, limits of requests, the loop. */
import { randomBytes } from "node:crypto";
import {
  canCutVision,
  imageLayout,
  planHash,
  planPlacement,
  rankBytes,
  type ModelFolder,
  type PlacementPlan,
} from "@tessera/model";
import { KvType, VisionPlacement, WireType } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { GroupSettings, WorkerFacts } from "../cluster/group.js";
import {
  REQUEST_LIMITS,
  TextQueue,
  type PrepareContext,
  type Tokenizer,
} from "../request/index.js";
import type { LoopLimits } from "./engine-loop.js";
import { tensorParallelSize, type CoordinatorOptions } from "./options.js";

export const BUILD = "tessera 0.1.0";
export const JOIN_DEADLINE_MS = 10 * 60_000;

const VISION = {
  replicate: VisionPlacement.REPLICATE,
  tensor: VisionPlacement.TENSOR,
  workers: VisionPlacement.WORKERS,
} as const;

const KV = { f32: KvType.F32, bf16: KvType.BF16, int8: KvType.INT8 } as const;

/**
 * Placements to choose from when it is known what memory the workers have, the first that fits: with vision `auto` the
 * encoder whole on each, then cut where it can be. They differ in nothing else.
 * @throws ModelError when the options do not fit the model.
 */
export function plansOf(
  model: ModelFolder,
  options: CoordinatorOptions,
): [PlacementPlan, ...PlacementPlan[]] {
  const { vision = "auto", visionWorkers } = options;
  const size = tensorParallelSize(options);
  const plan = (where: typeof vision) =>
    planPlacement(model.config, {
      size,
      kvType: options.kvType,
      vision: where,
      visionWorkers,
      maxModelLen: options.maxModelLen,
      cacheBytes: options.cacheMemoryBytes,
      crossCacheBytes: options.crossCacheMemoryBytes,
      embeddingBytes: options.embeddingMemoryBytes,
      maxBatchedTokens: options.maxBatchedTokens,
      maxSequences: options.maxSequences,
      draftTokens: options.speculate,
    });
  const first = plan(vision);
  const cut = vision === "auto" && visionWorkers === undefined && size > 1;
  return cut && canCutVision(model.config, size) ? [first, plan("tensor")] : [first];
}

/** Bytes each worker has for itself: those of one host that report the same memory share it. */
export function memoryShares(workers: WorkerFacts[]): number[] {
  const hostOf = (address: string) => address.slice(0, address.lastIndexOf(":"));
  return workers.map(({ address, memoryBytes }) => {
    const sharing = workers.filter(
      (other) => hostOf(other.address) === hostOf(address) && other.memoryBytes === memoryBytes,
    );
    return memoryBytes / sharing.length;
  });
}

/** The first that fits; the last one when none does: the workers then say what is missing. */
export function choosePlan<T extends { plan: PlacementPlan }>(
  choices: [T, ...T[]],
  workers: WorkerFacts[],
): T {
  const shares = memoryShares(workers);
  const fits = ({ plan }: T) =>
    plan.ranks.every((rank, i) => rankBytes(rank) <= (shares[i] ?? Infinity));
  return choices.find(fits) ?? choices.at(-1) ?? choices[0];
}

export function settingsOf(
  options: CoordinatorOptions,
  modelHash: string,
  plan: PlacementPlan,
  selectableIds: number,
): GroupSettings {
  const placement = {
    kvType: KV[options.kvType],
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
): PrepareContext & { texts: TextQueue } {
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
    texts: new TextQueue(tokenizer.bpe),
    layout: imageLayout(model.config),
    room: {
      tiles: plan.maxEmbeddings,
      crossBlocks: plan.crossBlockCount,
      streamRows: plan.maxStreamRows,
    },
  };
}

export function loopLimitsOf(
  model: ModelFolder,
  plan: PlacementPlan,
  options: CoordinatorOptions,
): LoopLimits {
  const vocabulary = model.config.decoder.vocabularySize;
  const { maxRequests, speculate: draftTokens = 0 } = options;
  return { ...plan, vocabulary, maxRequests, draftTokens };
}
