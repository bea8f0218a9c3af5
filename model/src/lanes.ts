/** Lanes and cuts (docs/exactness.md): pure functions that say which columns, rows and heads a rank holds. */
import { ModelError } from "./errors.js";

/** Outputs of a weight panel; lanes are cut in units of max(this, weight group). */
export const PANEL = 64;
export const VISION_LANES = 8;

/** The largest power of two ≤ 8 that divides `kvHeads`. */
export function laneCount(kvHeads: number): number {
  for (const lanes of [8, 4, 2]) if (kvHeads % lanes === 0) return lanes;
  return 1;
}

/** Starts of `lanes` lanes over `count` columns in units of `unit`, then `count`. */
export function laneStarts(count: number, lanes: number, unit = PANEL): number[] {
  const units = Math.ceil(count / unit);
  return Array.from({ length: lanes + 1 }, (_, i) =>
    Math.min(count, Math.floor((i * units) / lanes) * unit),
  );
}

/** First head of each lane, then the number of heads. */
export function headStarts(heads: number, lanes: number): number[] {
  return Array.from({ length: lanes + 1 }, (_, i) => Math.floor((i * heads) / lanes));
}

export interface Range {
  start: number;
  count: number;
}

/** The lanes of rank `rank` of `size`: whole, consecutive. */
export function rankLanes(lanes: number, cut: { rank: number; size: number }): Range {
  const count = lanes / cut.size;
  return { start: cut.rank * count, count };
}

/** What a rank holds of something cut at `starts`. */
export function rankRange(starts: number[], cut: { rank: number; size: number }): Range {
  const lanes = rankLanes(starts.length - 1, cut);
  const start = starts[lanes.start] ?? 0;
  return { start, count: (starts[lanes.start + lanes.count] ?? 0) - start };
}

/** Lane starts of a rank's own columns, counted from its first; then their number. */
export function rankLaneStarts(starts: number[], cut: { rank: number; size: number }): number[] {
  const lanes = rankLanes(starts.length - 1, cut);
  const own = starts.slice(lanes.start, lanes.start + lanes.count + 1);
  return own.map((start) => start - (own[0] ?? 0));
}

/** @throws ModelError INVALID_ARGUMENT with the reason and the next size that works. */
export function checkTensorParallelSize(
  config: { decoder: { kvHeads: number } },
  size: number,
): void {
  const lanes = laneCount(config.decoder.kvHeads);
  if (Number.isSafeInteger(size) && size >= 1 && lanes % size === 0) return;
  const possible = [1, 2, 4, 8].filter((n) => lanes % n === 0);
  const next = possible.filter((n) => n < size).at(-1) ?? 1;
  const reason =
    size > lanes
      ? `the ${config.decoder.kvHeads} key-value heads give ${lanes} lanes, and a rank holds whole lanes`
      : `a rank holds whole lanes, of which there are ${lanes}`;
  throw new ModelError(
    "INVALID_ARGUMENT",
    `tensor-parallel size ${size}: ${reason}; possible: ${possible.join(", ")}; next: ${next}`,
  );
}
