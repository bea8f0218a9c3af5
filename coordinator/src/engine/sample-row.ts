/** The next token of one sequence, from its row's lanes of all ranks. */
import { ServeError } from "@tessera/proto";
import type { RowResult } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
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

/** `rows` are of this sequence. A ServeError is this request's own failure. */
export async function sampleRow(
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
