/** Log-probabilities of a prompt's tokens, from the wanted rows of its slices. */
import { ServeError } from "@tessera/proto";
import type { RowResult } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { SliceChoice } from "../schedule/scheduler.js";
import type { Sequence } from "./active.js";
import { describeScored } from "./sampler.js";

/**
 * Notes those of one slice by position; the list is whole when the prompt is computed. `rows` are of this sequence.
 * → a ServeError that is the request's own failure
 */
export function takeScores(
  { sequence, start, count }: SliceChoice<Sequence>,
  rows: RowResult[],
): ServeError | undefined {
  const { scoring, prepared } = sequence.request;
  if (scoring === undefined) return undefined;
  const end = Math.min(start + count, sequence.wantedBefore);
  for (let position = start; position < end; position++) {
    const lanes = rows
      .filter(({ row }) => row === position - start)
      .flatMap((row) => row.lanes)
      .sort((a, b) => a.lane - b.lane);
    if (lanes.some((lane) => lane.nonFinite))
      return new ServeError("NON_FINITE", `a logit at position ${position + 1} is not finite`);
    const tokenId = sequence.tokens[position + 1] ?? 0;
    scoring[position] = describeScored(lanes, tokenId, prepared.promptLogprobs ?? 0);
  }
  return undefined;
}
