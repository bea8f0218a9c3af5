/** How many tokens and sequences a step of this group takes in good time: measured before it serves. */
import { create } from "@bufbuild/protobuf";
import { BLOCK_TOKENS } from "@tessera/model";
import { StepPlanSchema, type StepPlan } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { RunningGroup } from "../cluster/group.js";
import { blockCount } from "../schedule/blocks.js";
import type { LoopLimits } from "./engine-loop.js";

export type Pace = Pick<LoopLimits, "maxBatchedTokens" | "maxSequences">;

/** What a step may take: a running stream waits so long for its next token beside a long prompt. */
const STEP_MS = 200;
/** Where one token alone takes long already: so many times that. */
const STEP_RATIO = 4;
/** Less would leave prompts hardly anything beside those that decode. */
const LEAST_TOKENS = 2 * BLOCK_TOKENS;
const LEAST_SEQUENCES = 4;

export interface WarmUp {
  /** `lastStepId` and `step` of it. */
  group: Pick<RunningGroup, "step" | "lastStepId">;
  limits: Pick<LoopLimits, "maxBatchedTokens" | "maxSequences" | "blockCount"> & {
    /** Tokens of one sequence. */
    maxModelLen: number;
  };
  /** What was asked for by name is not measured. */
  fixed: Partial<Record<keyof Pace, number | undefined>>;
  nowMs: () => number;
}

type StepPart = Pick<StepPlan, "slices" | "opened">;

/** Sequences of so many tokens each, opened, computed and forgotten. */
function planOf(lengths: number[]): StepPart & { ids: bigint[] } {
  const ids = lengths.map((_, i) => BigInt(i + 1));
  let block = 0;
  const { opened, slices } = create(StepPlanSchema, {
    opened: lengths.map((promptLength, i) => ({
      sequenceId: ids[i] ?? 0n,
      promptLength,
      sampling: { repetitionPenalty: 1 },
    })),
    slices: lengths.map((count, i) => ({
      sequenceId: ids[i] ?? 0n,
      tokenIds: Array.from({ length: count }, () => 0),
      blockIds: Array.from({ length: blockCount(count) }, () => block++),
      wanted: [{ row: count - 1 }],
    })),
  });
  return { opened, slices, ids };
}

/** `count` tokens in sequences as long as they may be. */
function cut(count: number, longest: number): number[] {
  const whole = Array.from({ length: Math.floor(count / longest) }, () => longest);
  return count % longest === 0 ? whole : [...whole, count % longest];
}

/** 1, 2, 4, … and `limit` itself. */
function ladder(from: number, limit: number): number[] {
  const rungs: number[] = [];
  for (let rung = from; rung < limit; rung *= 2) rungs.push(rung);
  return [...rungs, limit];
}

class Measure {
  constructor(private readonly of: WarmUp) {}

  /** Milliseconds of one such step; the better of two. */
  async stepMs(lengths: number[]): Promise<number> {
    return Math.min(await this.once(lengths), await this.once(lengths));
  }

  private async once(lengths: number[]): Promise<number> {
    const { nowMs } = this.of;
    const { ids, ...part } = planOf(lengths);
    const start = nowMs();
    await this.step(part, []);
    const spent = nowMs() - start;
    await this.step({ opened: [], slices: [] }, ids);
    return spent;
  }

  private async step(part: StepPart, closedSequenceIds: bigint[]): Promise<void> {
    const { group } = this.of;
    const plan = create(StepPlanSchema, { releasedStep: group.lastStepId, closedSequenceIds });
    await group.step({ ...plan, ...part });
  }

  /** The last rung whose step is in time. */
  async climb(
    rungs: number[],
    of: { least: number; boundMs: number; ms: (rung: number) => Promise<number> },
  ): Promise<number> {
    let best = rungs[0] ?? of.least;
    for (const rung of rungs) {
      if (rung > of.least && (await of.ms(rung)) > of.boundMs) break;
      best = rung;
    }
    return best;
  }
}

/** @throws ServeError when the epoch ends meanwhile */
export async function warmUp(of: WarmUp): Promise<Pace> {
  const { limits, fixed } = of;
  const { maxBatchedTokens: tokens, maxSequences: sequences } = fixed;
  if (tokens !== undefined && sequences !== undefined)
    return { maxBatchedTokens: tokens, maxSequences: sequences };
  const measure = new Measure(of);
  const boundMs = Math.max(STEP_MS, STEP_RATIO * (await measure.stepMs([1])));
  const longest = Math.min(limits.maxModelLen, limits.blockCount * BLOCK_TOKENS);
  // Of so many sequences of the longest kind all blocks are there.
  const whole = Math.min(limits.maxSequences, Math.floor(limits.blockCount / blockCount(longest)));
  const mostTokens = Math.min(limits.maxBatchedTokens, whole * longest);
  const maxBatchedTokens =
    tokens ??
    (await measure.climb(ladder(Math.min(LEAST_TOKENS, mostTokens), mostTokens), {
      least: LEAST_TOKENS,
      boundMs,
      ms: (count) => measure.stepMs(cut(count, longest)),
    }));
  const mostSequences = Math.min(limits.maxSequences, limits.blockCount, maxBatchedTokens);
  const maxSequences =
    sequences ??
    (await measure.climb(ladder(Math.min(LEAST_SEQUENCES, mostSequences), mostSequences), {
      least: LEAST_SEQUENCES,
      boundMs,
      ms: (count) => measure.stepMs(Array.from({ length: count }, () => 1)),
    }));
  return { maxBatchedTokens, maxSequences };
}
