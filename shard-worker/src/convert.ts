/** Messages of tessera.shard.v1 ↔ the engine's plain structs. */
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  KvType,
  StepResponseSchema,
  VisionPlacement,
  WireType,
  type Placement,
  type RowResultSchema,
  type SamplingState,
  type SequenceSlice,
  type StepPlan,
  type StepResponse,
  type StreamOpen,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type {
  LaneResult,
  PlacementSpec,
  RowResult,
  SamplingSpec,
  SliceSpec,
  StepOutcome,
  StepPlanSpec,
  StreamOpenSpec,
} from "@tessera/native/engine";

const KV = {
  [KvType.UNSPECIFIED]: "f32",
  [KvType.F32]: "f32",
  [KvType.BF16]: "bf16",
  [KvType.INT8]: "int8",
} as const;

/** @throws ServeError naming the field */
export function toPlacementSpec(from: Placement): PlacementSpec {
  const { $typeName: _type, $unknown: _unknown, vision: _vision, ...facts } = from;
  const { kvType, wireType, encoderCount: encoders, ...rest } = facts;
  if (!(kvType in KV)) throw ServeError.field("placement.kv_type", `is ${kvType}, unknown`);
  return {
    ...rest,
    encoders,
    kvType: KV[kvType],
    wireType: wireType === WireType.BF16 ? "bf16" : "f32",
  };
}

const VISION = {
  [VisionPlacement.UNSPECIFIED]: "replicate",
  [VisionPlacement.REPLICATE]: "replicate",
  [VisionPlacement.TENSOR]: "tensor",
  [VisionPlacement.WORKERS]: "workers",
} as const;

/** What a rank of `peers` holds. @throws ServeError naming the field */
export function toCut(
  rank: number,
  peers: number,
  { vision, encoderCount }: Placement,
): { rank: number; size: number; vision: (typeof VISION)[VisionPlacement] } {
  if (!(vision in VISION)) throw ServeError.field("placement.vision", `is ${vision}, unknown`);
  const size = peers - encoderCount;
  if (size < 1 || encoderCount > 0 !== (vision === VisionPlacement.WORKERS))
    throw ServeError.field(
      "placement.encoder_count",
      `is ${encoderCount} of ${peers} ranks with vision ${VISION[vision]}`,
    );
  if (rank >= peers) throw ServeError.field("rank", `is ${rank}, the group has ${peers}`);
  return { rank, size, vision: VISION[vision] };
}

function toSampling(from: SamplingState | undefined): SamplingSpec {
  return {
    temperature: from?.temperature ?? 0,
    seed: from?.seed ?? 0n,
    choice: from?.choice ?? 0,
    repetitionPenalty: from?.repetitionPenalty ?? 1,
    presencePenalty: from?.presencePenalty ?? 0,
    frequencyPenalty: from?.frequencyPenalty ?? 0,
    logitBias: from?.logitBias ?? [],
    allowedTokenIds: from?.allowedTokenIds ?? [],
    badWords: from?.badWords.map((word) => word.tokenIds) ?? [],
    minTokens: from?.minTokens ?? 0,
    suppressedTokenIds: from?.suppressedTokenIds ?? [],
  };
}

function toSlice(from: SequenceSlice): SliceSpec {
  return from;
}

/** Rows of tokens are ids, those of a tile −1. */
function toStream(from: StreamOpen, rowsPerTile: number): StreamOpenSpec {
  const tokenIds: number[] = [];
  const imageRows = from.tiles.map(({ tagTokenIds, embeddingId, encoderRank }) => {
    tokenIds.push(...tagTokenIds);
    const row = tokenIds.length;
    for (let i = 0; i < rowsPerTile; i++) tokenIds.push(-1);
    return { row, embeddingId, firstRow: 0, count: rowsPerTile, encoderRank };
  });
  return { streamId: from.streamId, tokenIds, imageRows, blockIds: from.blockIds };
}

export function toStepPlan(from: StepPlan, rowsPerTile: number): StepPlanSpec {
  return {
    epoch: from.epoch,
    stepId: from.stepId,
    releasedStep: from.releasedStep,
    deadlineMs: from.deadlineMs,
    opened: from.opened.map((open) => ({ ...open, sampling: toSampling(open.sampling) })),
    closedSequenceIds: from.closedSequenceIds,
    releasedEmbeddingIds: from.releasedEmbeddingIds,
    slices: from.slices.map(toSlice),
    openedStreams: from.openedStreams.map((stream) => toStream(stream, rowsPerTile)),
    closedStreamIds: from.closedStreamIds,
    copiedBlocks: from.copiedBlocks,
    masks: from.masks,
  };
}

type RowInit = MessageInitShape<typeof RowResultSchema>;

function fromLane(lane: LaneResult): NonNullable<RowInit["lanes"]>[number] {
  const { best, raw, scaled, ...rest } = lane;
  return {
    ...rest,
    ...(best === null ? {} : { best }),
    ...(raw === null ? {} : { raw }),
    ...(scaled === null ? {} : { scaled }),
  };
}

export function fromRow(row: RowResult): RowInit {
  return { sequenceId: row.sequenceId, row: row.row, lanes: row.lanes.map(fromLane) };
}

export function fromStep(
  plan: { epoch: bigint; stepId: bigint },
  outcome: StepOutcome,
): StepResponse {
  return create(StepResponseSchema, {
    epoch: plan.epoch,
    stepId: plan.stepId,
    rows: outcome.rows.map(fromRow),
    times: {
      computeNs: outcome.computeNs,
      waitNs: outcome.waitNs,
      collectiveNs: outcome.collectiveNs,
      exchangeBytes: outcome.exchangeBytes,
    },
  });
}
