/**
 * Lanes of all ranks → a token (docs/exactness.md, Sampling): min-p, top-k, top-p over the processed logits divided by
 * the temperature, then the best of scaled + noise. Equal values: the lowest id.
 */
import type {
  Candidate,
  LaneResult,
  LogSum,
  ScoredToken,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { SampledToken, SamplingParameters } from "../request/types.js";

/** Candidates a lane sends at first when a filter is on. */
export const FIRST_CANDIDATES = 256;

export function hasFilters(sampling: SamplingParameters): boolean {
  const { temperature, topK, topP, minP } = sampling;
  return temperature > 0 && (topK > 0 || topP < 1 || minP > 0);
}

interface Total {
  max: number;
  sum: number;
}

/** Merged in lane order, in double. */
function mergeSums(sums: (LogSum | undefined)[]): Total {
  let max = -Infinity;
  for (const part of sums) if (part !== undefined) max = Math.max(max, part.max);
  let sum = 0;
  for (const part of sums)
    if (part !== undefined && part.sum > 0) sum += part.sum * Math.exp(part.max - max);
  return { max, sum };
}

function byScaled(a: Candidate, b: Candidate): number {
  return b.scaled - a.scaled || a.tokenId - b.tokenId;
}

/** Candidates in order, as far as no lane can have a better one that it did not send. */
function exactPrefix(lanes: LaneResult[], asked: number) {
  const bounds = lanes.filter((lane) => lane.candidates.length >= asked);
  const merged = lanes.flatMap((lane) => lane.candidates).sort(byScaled);
  const last = bounds.flatMap((lane) => lane.candidates.slice(-1)).sort(byScaled)[0];
  const end =
    last === undefined ? merged.length : merged.findIndex((c) => byScaled(c, last) >= 0) + 1;
  return { candidates: merged.slice(0, end), complete: last === undefined };
}

/** What the filters leave; undefined when more candidates are needed to know. */
export function applyFilters(
  lanes: LaneResult[],
  asked: number,
  sampling: SamplingParameters,
): Candidate[] | undefined {
  const { candidates, complete } = exactPrefix(lanes, asked);
  const total = mergeSums(lanes.map((lane) => lane.scaled));
  const weight = (candidate: Candidate) => Math.exp(candidate.scaled - total.max);
  let kept = candidates;
  let whole = complete;
  let mass = total.sum;
  if (sampling.minP > 0) {
    const least = sampling.minP * weight(kept[0] ?? ({ scaled: -Infinity } as Candidate));
    const end = kept.findIndex((candidate) => weight(candidate) < least);
    if (end < 0 && !complete && (sampling.topK === 0 || sampling.topK > kept.length))
      return undefined;
    if (end >= 0) {
      kept = kept.slice(0, end);
      whole = true;
    }
  }
  if (sampling.topK > 0) {
    if (kept.length < sampling.topK && !whole) return undefined;
    kept = kept.slice(0, sampling.topK);
    whole = true;
  }
  if (sampling.topP >= 1) return whole ? kept : undefined;
  if (sampling.minP > 0 || sampling.topK > 0)
    mass = kept.reduce((sum, candidate) => sum + weight(candidate), 0);
  let reached = 0;
  const end = kept.findIndex((candidate) => (reached += weight(candidate)) >= sampling.topP * mass);
  if (end < 0) return whole ? kept : undefined;
  return kept.slice(0, end + 1);
}

/** Best of scaled + noise in f32; the lowest id wins. */
export function drawBest(candidates: Candidate[]): Candidate | undefined {
  let best: { candidate: Candidate; value: number } | undefined;
  for (const candidate of candidates) {
    const value = Math.fround(candidate.scaled + candidate.noise);
    const better =
      best === undefined ||
      value > best.value ||
      (value === best.value && candidate.tokenId < best.candidate.tokenId);
    if (better) best = { candidate, value };
  }
  return best?.candidate;
}

/** The token of lanes without filters. */
export function drawFromLanes(lanes: LaneResult[]): Candidate | undefined {
  const best: Candidate[] = [];
  for (const lane of lanes) if (lane.best !== undefined) best.push(lane.best);
  return drawBest(best);
}

/** A token with its log-probability of the raw logits, and the best alternatives. */
function describe(
  lanes: LaneResult[],
  token: { tokenId: number; raw: number },
  topLogprobs: number,
): SampledToken {
  const total = mergeSums(lanes.map((lane) => lane.raw));
  const logZ = total.max + Math.log(total.sum);
  const logprob = (raw: number) => Math.fround(raw - logZ);
  const top: ScoredToken[] = lanes
    .flatMap((lane) => lane.top)
    .sort((a, b) => b.raw - a.raw || a.tokenId - b.tokenId)
    .slice(0, topLogprobs);
  return {
    tokenId: token.tokenId,
    logprob: logprob(token.raw),
    top: top.map(({ tokenId, raw }) => ({ tokenId, logprob: logprob(raw) })),
  };
}

/** The chosen token, with what was asked about it. */
export function describeToken(
  lanes: LaneResult[],
  chosen: Candidate,
  topLogprobs: number | undefined,
): SampledToken {
  if (topLogprobs === undefined) return { tokenId: chosen.tokenId, logprob: undefined, top: [] };
  return describe(lanes, chosen, topLogprobs);
}

/** A token of the prompt, whose raw logit was asked for. */
export function describeScored(
  lanes: LaneResult[],
  tokenId: number,
  topLogprobs: number,
): SampledToken {
  const scored = lanes.flatMap((lane) => lane.scored).find((one) => one.tokenId === tokenId);
  return describe(lanes, { tokenId, raw: scored?.raw ?? NaN }, topLogprobs);
}
