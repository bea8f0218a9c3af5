/** The next tokens of one sequence, from its rows' lanes of all ranks. */
import { ServeError } from "@tessera/proto";
import type { RowResult, StepResponse } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { RunningGroup } from "../cluster/group.js";
import type { SampledToken } from "../request/types.js";
import type { SliceChoice } from "../schedule/scheduler.js";
import type { Sequence } from "./active.js";
import {
  applyFilters,
  describeToken,
  drawBest,
  drawFromLanes,
  FIRST_CANDIDATES,
  hasFilters,
} from "./sampler.js";

/** Rows of all ranks. */
export function rowsBySequence(answers: StepResponse[]): Map<bigint, RowResult[]> {
  const rows = new Map<bigint, RowResult[]>();
  for (const row of answers.flatMap((answer) => answer.rows)) {
    const known = rows.get(row.sequenceId);
    if (known === undefined) rows.set(row.sequenceId, [row]);
    else known.push(row);
  }
  return rows;
}

/**
 * The token of the slice's last row, then those of the rows behind drafts as long as a draft is what was chosen before
 * it. Each is the sequence's before the next is asked for. `rows` are of this sequence; a ServeError is this request's
 * own failure, and the last.
 */
export async function* sampleSlice(
  group: RunningGroup,
  rows: RowResult[],
  { sequence, count, drafts, vocabulary }: SliceChoice<Sequence> & { vocabulary: number },
): AsyncGenerator<SampledToken | ServeError, void> {
  const stepId = group.lastStepId;
  for (let i = 0; i <= drafts.length; i++) {
    const at = { sequence, row: count - 1 + i, stepId, vocabulary };
    const chosen = await sampleRow(group, rows, at);
    yield chosen;
    if (chosen instanceof ServeError || chosen.tokenId !== drafts[i]) return;
  }
}

async function sampleRow(
  group: RunningGroup,
  rows: RowResult[],
  at: { sequence: Sequence; row: number; stepId: bigint; vocabulary: number },
): Promise<SampledToken | ServeError> {
  const { sequence, row, stepId, vocabulary } = at;
  const { sampling, topLogprobs } = sequence.request.prepared;
  const lanes = rows
    .filter((result) => result.row === row)
    .flatMap((result) => result.lanes)
    .sort((a, b) => a.lane - b.lane);
  if (lanes.some((lane) => lane.nonFinite))
    return new ServeError(
      "NON_FINITE",
      `a logit at position ${sequence.tokens.length} is not finite`,
    );
  let chosen;
  if (hasFilters(sampling)) {
    let asked = FIRST_CANDIDATES;
    let current = lanes;
    let kept = applyFilters(current, asked, sampling);
    while (kept === undefined) {
      asked *= 8;
      const more = await group.moreCandidates({
        stepId,
        sequenceId: sequence.id,
        row,
        count: Math.min(asked, vocabulary),
      });
      current = lanes.map((lane, i) => ({ ...lane, candidates: more[i]?.candidates ?? [] }));
      kept = applyFilters(current, asked, sampling);
    }
    chosen = drawBest(kept);
  } else {
    chosen = drawFromLanes(lanes);
  }
  if (chosen === undefined)
    return ServeError.field("sampling", "leaves no token that may be chosen");
  return describeToken(lanes, chosen, topLogprobs);
}
