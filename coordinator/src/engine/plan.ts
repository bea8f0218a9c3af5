/** Slices → the plan every rank receives. */
import { create } from "@bufbuild/protobuf";
import {
  SequenceOpenSchema,
  SequenceSliceSchema,
  StepPlanSchema,
  StreamOpenSchema,
  type SequenceOpen,
  type StepPlan,
  type StreamOpen,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { PreparedRequest } from "../request/types.js";
import type { SliceChoice } from "../schedule/scheduler.js";
import type { Sequence } from "./active.js";
import type { OpenedStream } from "./images.js";
import { FIRST_CANDIDATES, hasFilters } from "./sampler.js";

/** What one plan may open, far below the 256 MiB that a message to a rank may have. */
export const MAX_OPENED_BYTES = 32 << 20;
const ID_BYTES = 5;

/** At least what opening one choice of a request adds to a plan. */
export function openedBytes({ sampling, stopTokenIds }: PreparedRequest): number {
  const { allowedTokenIds, logitBias, badWords } = sampling;
  const words = badWords.reduce((sum, ids) => sum + ID_BYTES * (ids.length + 2), 0);
  const ids = allowedTokenIds.length + stopTokenIds.length;
  return 128 + ID_BYTES * ids + (2 * ID_BYTES + 4) * logitBias.length + words;
}

function open(sequence: Sequence): SequenceOpen {
  const { sampling, minTokens, stopTokenIds } = sequence.request.prepared;
  return create(SequenceOpenSchema, {
    sequenceId: sequence.id,
    promptLength: sequence.request.prepared.promptIds.length,
    sampling: {
      temperature: sampling.temperature,
      seed: sampling.seed,
      choice: sequence.choice,
      repetitionPenalty: sampling.repetitionPenalty,
      presencePenalty: sampling.presencePenalty,
      frequencyPenalty: sampling.frequencyPenalty,
      logitBias: sampling.logitBias,
      allowedTokenIds: sampling.allowedTokenIds,
      badWords: sampling.badWords.map((tokenIds) => ({ tokenIds })),
      minTokens,
      suppressedTokenIds: minTokens > 0 ? stopTokenIds : [],
    },
  });
}

/** Rows of the slice that are image rows. */
function imageRows({ sequence, start, count }: SliceChoice<Sequence>) {
  const { prepared, images } = sequence.request;
  return prepared.imageRows.flatMap((run) => {
    const first = Math.max(run.position, start);
    const end = Math.min(run.position + run.count, start + count);
    const tile = images?.tiles[run.tile]?.value;
    if (first >= end || tile === undefined) return [];
    return [
      {
        row: first - start,
        embeddingId: tile.embeddingId,
        firstRow: run.firstRow + first - run.position,
        count: end - first,
        encoderRank: tile.rank,
      },
    ];
  });
}

/** Rows of the slice that see images, and what; the answer sees what the prompt's last token does. */
function seenRows({ sequence, start, count }: SliceChoice<Sequence>) {
  const { prepared, images } = sequence.request;
  return prepared.sights.flatMap(({ position, ranges }, i) => {
    const first = Math.max(position, start);
    const end = Math.min(prepared.sights[i + 1]?.position ?? Infinity, start + count);
    if (first >= end || ranges.length === 0) return [];
    const seen = ranges.map((range) => ({
      streamId: images?.streams[range.stream]?.value.streamId ?? 0n,
      first: range.first,
      end: range.end,
    }));
    return [{ row: first - start, count: end - first, ranges: seen }];
  });
}

function openStream({ held, tiles }: OpenedStream): StreamOpen {
  return create(StreamOpenSchema, {
    streamId: held.streamId,
    tiles: tiles.map(({ tagIds, tile }) => ({
      tagTokenIds: tagIds,
      embeddingId: tile.embeddingId,
      encoderRank: tile.rank,
    })),
    blockIds: held.blockIds,
  });
}

function slice(choice: SliceChoice<Sequence>) {
  const { sequence, start, count, firstBlock, newBlocks } = choice;
  const { sampling, topLogprobs } = sequence.request.prepared;
  const last = start + count === sequence.tokens.length;
  return create(SequenceSliceSchema, {
    sequenceId: sequence.id,
    startPosition: start,
    tokenIds: sequence.tokens.slice(start, start + count),
    firstBlock,
    blockIds: newBlocks,
    imageRows: imageRows(choice),
    seen: seenRows(choice),
    wanted: last
      ? [
          {
            row: count - 1,
            candidates: hasFilters(sampling) ? FIRST_CANDIDATES : 0,
            topLogprobs: topLogprobs ?? 0,
            logprob: topLogprobs !== undefined,
          },
        ]
      : [],
  });
}

export interface PlanChanges {
  closed: bigint[];
  releasedEmbeddings: bigint[];
  closedStreams: bigint[];
  openedStreams: OpenedStream[];
  releasedStep: bigint;
}

export function buildPlan(slices: SliceChoice<Sequence>[], changes: PlanChanges): StepPlan {
  const opened = slices.filter(({ sequence }) => !sequence.opened).map(({ sequence }) => sequence);
  for (const sequence of opened) sequence.opened = true;
  return create(StepPlanSchema, {
    releasedStep: changes.releasedStep,
    opened: opened.map(open),
    closedSequenceIds: changes.closed,
    releasedEmbeddingIds: changes.releasedEmbeddings,
    slices: slices.map(slice),
    openedStreams: changes.openedStreams.map(openStream),
    closedStreamIds: changes.closedStreams,
  });
}
