/** The next token of one sequence, from its row's lanes of all ranks. */
import { ServeError } from "@tessera/proto";
import type {
  Candidate,
  LaneResult,
  RowResult,
  StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { RunningGroup } from "../cluster/group.js";
import type { SampledToken } from "../request/types.js";
import type { Sequence } from "./active.js";
import {
  applyFilters,
  describeToken,
  drawBest,
  drawFromLanes,
  FIRST_CANDIDATES,
  hasFilters,
} from "./sampler.js";

interface At {
  sequence: Sequence;
  row: number;
  stepId: bigint;
  vocabulary: number;
}

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

/** Of all ranks, in rising order. */
function lanesOf(rows: RowResult[], row: number): LaneResult[] {
  const lanes: LaneResult[] = [];
  for (const result of rows) if (result.row === row) lanes.push(...result.lanes);
  const rising = lanes.every(({ lane }, i) => i === 0 || lane > (lanes[i - 1]?.lane ?? 0));
  return rising ? lanes : lanes.sort((a, b) => a.lane - b.lane);
}

/**
 * `rows` are of this sequence. A ServeError is this request's own failure. A promise only where ranks are asked again: a
 * wait for each of many sequences costs as much as all the rest.
 */
export function sampleRow(
  group: RunningGroup,
  rows: RowResult[],
  at: At,
): SampledToken | ServeError | Promise<SampledToken | ServeError> {
  const { sampling, topLogprobs } = at.sequence.request.prepared;
  const lanes = lanesOf(rows, at.row);
  if (lanes.some((lane) => lane.nonFinite))
    return new ServeError(
      "NON_FINITE",
      `a logit at position ${at.sequence.tokens.length} is not finite`,
    );
  const told = (chosen: Candidate | undefined) =>
    chosen === undefined
      ? ServeError.field("sampling", "leaves no token that may be chosen")
      : describeToken(lanes, chosen, topLogprobs);
  if (!hasFilters(sampling)) return told(drawFromLanes(lanes));
  const kept = applyFilters(lanes, FIRST_CANDIDATES, sampling);
  if (kept !== undefined) return told(drawBest(kept));
  return widened(group, lanes, at).then((wide) => told(drawBest(wide)));
}

/** What the filters leave, with ever more candidates of each lane. */
async function widened(group: RunningGroup, lanes: LaneResult[], at: At): Promise<Candidate[]> {
  const { sequence, row, stepId, vocabulary } = at;
  let kept: Candidate[] | undefined;
  for (let asked = 8 * FIRST_CANDIDATES; kept === undefined; asked *= 8) {
    const count = Math.min(asked, vocabulary);
    const more = await group.moreCandidates({ stepId, sequenceId: sequence.id, row, count });
    const current = lanes.map((lane, i) => ({ ...lane, candidates: more[i]?.candidates ?? [] }));
    kept = applyFilters(current, asked, sequence.request.prepared.sampling);
  }
  return kept;
}
