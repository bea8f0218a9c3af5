/** A program that computes nothing: its step is round trips of a payload over the collectives of a real engine. */
import { writeFile } from "node:fs/promises";
import type { Program, RankProgram } from "@tessera/model";
import type { PlacementSpec, StepPlanSpec, TensorSource } from "@tessera/native/engine";
import { GREEDY } from "@tessera/native/engine";

/** A partial sum up to this size goes to every peer at once; a greater one is cut by owner (native, kDirectBytes). */
const DIRECT_BYTES = 64 << 10;
const EMPTY: Program = { buffers: [], weights: [], segments: [] };

/** f32 values of the buffer that is summed. */
function payloadWidth(bytes: number): number {
  return (bytes <= DIRECT_BYTES ? bytes : 2 * bytes) / 4;
}

/** The stored zeros that fill the payload, in a file at `path`. */
export async function writeZeros(
  path: string,
  bytes: number,
): Promise<Record<string, TensorSource>> {
  const cols = payloadWidth(bytes);
  await writeFile(path, Buffer.alloc(2 * cols));
  return { zeros: { path, offset: 0, bytes: 2 * cols, dtype: "BF16", rows: 1, cols } };
}

/**
 * `trips` times `bytes` go to the peer and as many come back before anything else is sent. Up to 64 KiB: two all-reduces, one behind
 * the other. Beyond: one of twice the size, whose halves go to their owners and whose sums come back.
 */
export function roundTripProgram(
  bytes: number,
  { rank, trips }: { rank: number; trips: number },
): RankProgram {
  const collectives = bytes <= DIRECT_BYTES ? 2 * trips : trips;
  const width = payloadWidth(bytes);
  const collective = { op: "all_reduce_add" as const, buffer: 0 };
  const fill = { op: "embed_tokens" as const, out: 0, table: 0, firstId: 0 };
  const piece = { tensor: "zeros", rowStart: 0, rowCount: 1, colStart: 0, colCount: width };
  return {
    rank,
    size: 2,
    encode: EMPTY,
    stream: EMPTY,
    crossCache: { layers: 0, kvHeads: 0, headDim: 0 },
    step: {
      buffers: [{ name: "payload", per: "token", rows: 1, width }],
      weights: [{ kind: "table", name: "zeros", rows: 1, width, pieces: [piece] }],
      segments: Array.from({ length: collectives }, (_, i) => ({
        ops: i === 0 ? [fill] : [],
        collective,
      })),
    },
    cache: { layers: 1, kvHeads: 1, headDim: 16 },
    embedding: { rows: 1, width: 16 },
    tile: { size: 16 },
    vocabulary: 16,
  };
}

export const DEADLINE_MS = 20_000;

export const PLACEMENT: PlacementSpec = {
  kvType: "f32",
  wireType: "f32",
  blockCount: 1,
  maxBatchedTokens: 1,
  maxSequences: 1,
  maxWantedRows: 1,
  maxTiles: 1,
  maxEmbeddings: 1,
  maxModelLen: 32,
  maxStepsInFlight: 1,
  selectableIds: 16,
  collectiveDeadlineMs: DEADLINE_MS,
};

/** The same token of the same sequence again and again; the first step opens it. */
export function roundTripStep(epoch: bigint, stepId: bigint): StepPlanSpec {
  const first = stepId === 1n;
  return {
    epoch,
    stepId,
    releasedStep: stepId - 1n,
    deadlineMs: DEADLINE_MS,
    opened: first ? [{ sequenceId: 1n, promptLength: 1, tokenIds: [], sampling: GREEDY }] : [],
    closedSequenceIds: [],
    releasedEmbeddingIds: [],
    slices: [
      {
        sequenceId: 1n,
        startPosition: 0,
        tokenIds: [0],
        firstBlock: 0,
        blockIds: first ? [0] : [],
        imageRows: [],
        wanted: [],
      },
    ],
  };
}
