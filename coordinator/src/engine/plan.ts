/** Slices → the plan every rank receives. */
import { create } from "@bufbuild/protobuf";
import {
  SequenceOpenSchema,
  ImageRowsSchema,
  SeenRowsSchema,
  StepPlanSchema,
  StreamOpenSchema,
  type SequenceOpen,
  type StepPlan,
  type StreamOpen,
  type SequenceSlice,
  type WantedRow,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { PreparedRequest, SamplingParameters } from "../request/types.js";
import type { SliceChoice } from "../schedule/scheduler.js";
import type { Sequence } from "./active.js";
import type { OpenedStream } from "./images.js";
import { PlanMasks } from "./plan-masks.js";
import { FIRST_CANDIDATES, hasFilters } from "./sampler.js";

/** What one plan may open, far below the 256 MiB that a message to a rank may have. */
export const MAX_OPENED_BYTES = 32 << 20;
const ID_BYTES = 5;

/** Whether the ranks look at tokens before the next one to choose it. */
function needsHistory(sampling: SamplingParameters): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, badWords } = sampling;
  const penalised = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
  return penalised || badWords.length > 0;
}

/** At least what opening one choice of a request adds to a plan. */
export function openedBytes(prepared: PreparedRequest): number {
  const { sampling, stopTokenIds, promptIds } = prepared;
  const { allowedTokenIds, logitBias, badWords } = sampling;
  const words = badWords.reduce((sum, ids) => sum + ID_BYTES * (ids.length + 2), 0);
  const ids = allowedTokenIds.length + stopTokenIds.length;
  const history = needsHistory(sampling) ? promptIds.length : 0;
  return 128 + ID_BYTES * (ids + history) + (2 * ID_BYTES + 4) * logitBias.length + words;
}

/** A sequence that begins behind blocks of others brings the tokens that lie there. */
function open({ sequence, start }: SliceChoice<Sequence>): SequenceOpen {
  const { sampling, minTokens, stopTokenIds } = sequence.request.prepared;
  return create(SequenceOpenSchema, {
    sequenceId: sequence.id,
    promptLength: sequence.request.prepared.promptIds.length,
    tokenIds: needsHistory(sampling) ? sequence.tokens.slice(0, start) : [],
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
function seenRows({ sequence, start, count, drafts }: SliceChoice<Sequence>) {
  const { prepared, images } = sequence.request;
  const all = start + count + drafts.length;
  return prepared.sights.flatMap(({ position, ranges }, i) => {
    const first = Math.max(position, start);
    const end = Math.min(prepared.sights[i + 1]?.position ?? Infinity, all);
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

/** Literals: these stand in every slice of every step, and `create` would cost as much as all the rest. */
function wantedRow(row: number, of: Partial<WantedRow>): WantedRow {
  return {
    $typeName: "tessera.shard.v1.WantedRow",
    row,
    candidates: 0,
    topLogprobs: 0,
    logprob: false,
    scoredTokenIds: [],
    mask: 0,
    ...of,
  };
}

/** Rows whose next token is the prompt's, and is scored. */
function scoredRows({ sequence, start, count }: SliceChoice<Sequence>): WantedRow[] {
  const { promptLogprobs } = sequence.request.prepared;
  const end = Math.min(start + count, sequence.wantedBefore);
  return Array.from({ length: Math.max(0, end - start) }, (_, row) =>
    wantedRow(row, {
      topLogprobs: promptLogprobs ?? 0,
      logprob: true,
      scoredTokenIds: [sequence.tokens[start + row + 1] ?? 0],
    }),
  );
}

/** The row that the next token is chosen from, and those behind drafts, as if these were tokens of the answer. */
function chosenRows({ sequence, count, drafts }: SliceChoice<Sequence>, masks: PlanMasks) {
  const { sampling, topLogprobs } = sequence.request.prepared;
  const { matcher } = sequence.parts;
  const masksOf = [matcher?.mask, ...drafts.map((_, i) => matcher?.ahead[i]?.mask)];
  return masksOf.map((mask, i) =>
    wantedRow(count - 1 + i, {
      candidates: hasFilters(sampling) ? FIRST_CANDIDATES : 0,
      topLogprobs: topLogprobs ?? 0,
      logprob: topLogprobs !== undefined,
      mask: masks.numberOf(mask),
    }),
  );
}

function slice(choice: SliceChoice<Sequence>, masks: PlanMasks): SequenceSlice {
  const { sequence, start, count, firstBlock, newBlocks } = choice;
  const last = start + count === sequence.tokens.length;
  const scored = scoredRows(choice);
  return {
    $typeName: "tessera.shard.v1.SequenceSlice",
    sequenceId: sequence.id,
    startPosition: start,
    tokenIds: [...sequence.tokens.slice(start, start + count), ...choice.drafts],
    firstBlock,
    blockIds: newBlocks,
    imageRows: imageRows(choice).map((rows) => create(ImageRowsSchema, rows)),
    seen: seenRows(choice).map((rows) => create(SeenRowsSchema, rows)),
    wanted: last ? [...scored, ...chosenRows(choice, masks)] : scored,
  };
}

export interface PlanChanges {
  closed: bigint[];
  releasedEmbeddings: bigint[];
  closedStreams: bigint[];
  openedStreams: OpenedStream[];
  releasedStep: bigint;
}

/** A sequence that is not open, or that begins again behind tokens that the ranks have not seen of it. */
function mustOpen({ sequence, start }: SliceChoice<Sequence>): boolean {
  if (!sequence.opened) return true;
  return start > sequence.knownTokens && needsHistory(sequence.request.prepared.sampling);
}

export function buildPlan(slices: SliceChoice<Sequence>[], changes: PlanChanges): StepPlan {
  const opening = slices.filter(mustOpen);
  const reopened = opening.filter(({ sequence }) => sequence.opened);
  const masks = new PlanMasks();
  const plan = create(StepPlanSchema, {
    releasedStep: changes.releasedStep,
    opened: opening.map(open),
    closedSequenceIds: [...changes.closed, ...reopened.map(({ sequence }) => sequence.id)],
    releasedEmbeddingIds: changes.releasedEmbeddings,
    slices: slices.map((choice) => slice(choice, masks)),
    masks: masks.masks,
    openedStreams: changes.openedStreams.map(openStream),
    closedStreamIds: changes.closedStreams,
    copiedBlocks: slices.flatMap(({ copy }) => (copy === undefined ? [] : [copy])),
  });
  for (const { sequence, start, count } of slices) {
    sequence.opened = true;
    sequence.knownTokens = start + count;
  }
  return plan;
}
