/** The plans a profile runs: tiles, prompts in steps as the scheduler cuts them, then one token a sequence a step. */
import { GREEDY, type EncodePlan, type SliceSpec, type StepPlanSpec } from "@tessera/native/engine";
import { BLOCK_TOKENS } from "@tessera/model";

export interface PassSizes {
  epoch: bigint;
  batch: number;
  promptLen: number;
  decodeLen: number;
  maxBatchedTokens: number;
  vocabulary: number;
}

const DEADLINE_MS = 10 * 60_000;

/** Ids that differ from place to place; what they are does not matter to the time. */
function tokensOf(sequence: number, start: number, count: number, vocabulary: number): number[] {
  return Array.from(
    { length: count },
    (_, i) => (sequence * 104_729 + (start + i) * 7919) % vocabulary,
  );
}

export function blocksPerSequence({ promptLen, decodeLen }: PassSizes): number {
  return Math.ceil((promptLen + decodeLen) / BLOCK_TOKENS);
}

function slice(sequence: number, start: number, count: number, sizes: PassSizes): SliceSpec {
  const blocks = blocksPerSequence(sizes);
  const last = start + count >= sizes.promptLen;
  const wanted = { row: count - 1, candidates: 0, topLogprobs: 0, logprob: false };
  return {
    sequenceId: BigInt(sequence + 1),
    startPosition: start,
    tokenIds: tokensOf(sequence, start, count, sizes.vocabulary),
    firstBlock: 0,
    blockIds: start > 0 ? [] : Array.from({ length: blocks }, (_, b) => sequence * blocks + b),
    imageRows: [],
    wanted: last ? [{ ...wanted, scoredTokenIds: [] }] : [],
  };
}

function plan(stepId: number, slices: SliceSpec[], { epoch, promptLen }: PassSizes): StepPlanSpec {
  const opened = slices
    .filter(({ startPosition }) => startPosition === 0)
    .map(({ sequenceId }) => ({
      sequenceId,
      promptLength: promptLen,
      tokenIds: [],
      sampling: GREEDY,
    }));
  return {
    epoch,
    stepId: BigInt(stepId),
    releasedStep: BigInt(stepId - 1),
    deadlineMs: DEADLINE_MS,
    opened,
    closedSequenceIds: [],
    releasedEmbeddingIds: [],
    slices,
    capture: [],
    profile: true,
  };
}

/** First come, first served, under the token budget of a step. */
export function prefillSlices(sizes: PassSizes): SliceSpec[][] {
  const { batch, promptLen, maxBatchedTokens } = sizes;
  const steps: SliceSpec[][] = [];
  let room = 0;
  for (let sequence = 0; sequence < batch; sequence++)
    for (let start = 0; start < promptLen;) {
      if (room === 0) {
        steps.push([]);
        room = maxBatchedTokens;
      }
      const count = Math.min(room, promptLen - start);
      steps.at(-1)?.push(slice(sequence, start, count, sizes));
      start += count;
      room -= count;
    }
  return steps;
}

/** Step 1, not timed: the first of the prompts', so that memory is touched before it is measured. */
export function warmUpPlan(sizes: PassSizes): StepPlanSpec {
  const [first = []] = prefillSlices(sizes);
  return { ...plan(1, first, sizes), profile: false };
}

/** From step 2 on; the first closes what the warm-up opened. */
export function* prefillPlans(sizes: PassSizes): Generator<StepPlanSpec> {
  const closedSequenceIds = warmUpPlan(sizes).opened.map(({ sequenceId }) => sequenceId);
  for (const [i, slices] of prefillSlices(sizes).entries()) {
    const made = plan(i + 2, slices, sizes);
    yield i === 0 ? { ...made, closedSequenceIds } : made;
  }
}

export function* decodePlans(sizes: PassSizes, firstStep: number): Generator<StepPlanSpec> {
  for (let i = 0; i < sizes.decodeLen; i++) {
    const slices = Array.from({ length: sizes.batch }, (_, sequence) =>
      slice(sequence, sizes.promptLen + i, 1, sizes),
    );
    yield plan(firstStep + i, slices, sizes);
  }
}

/** Tiles of noise, `most` at a time; the first of all is not timed. */
export function* encodePlans(
  tiles: number,
  { epoch, most, tileSize }: { epoch: bigint; most: number; tileSize: number },
): Generator<EncodePlan> {
  const pixels = Uint8Array.from(
    { length: 3 * tileSize ** 2 },
    (_, i) => (i * 2_654_435_761) >>> 24,
  );
  const made = (encodeId: bigint, first: number, profile: boolean): EncodePlan => ({
    epoch,
    encodeId,
    deadlineMs: DEADLINE_MS,
    tiles: Array.from({ length: Math.min(most, tiles - first) }, (_, i) => ({
      embeddingId: BigInt(first + i + 1),
      pixels,
    })),
    capture: [],
    profile,
  });
  if (tiles > 0) yield made(1n, 0, false);
  for (let first = 0, encodeId = 2n; first < tiles; first += most, encodeId++)
    yield made(encodeId, first, true);
}
