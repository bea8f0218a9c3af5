/** What is said of repeated measurements. */
import assert from "node:assert/strict";

/** The nearest-rank percentile: the least value that at least `part` (0 … 1) of the values do not exceed. */
export function percentile(values: readonly number[], part: number): number {
  assert(values.length > 0, "percentile of no values");
  assert(part >= 0 && part <= 1, `percentile ${part}, must be 0 … 1`);
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(part * sorted.length));
  return sorted[rank - 1] ?? NaN;
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  assert(values.length > 0, "median of no values");
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1] ?? NaN;
  const lower = sorted[(sorted.length - 1) >> 1] ?? NaN;
  return (lower + upper) / 2;
}

/** Of two things measured in turn, round by round: the median of the rounds' ratios, so that drift cancels out. */
export function pairedRatio(pairs: readonly { value: number; rival: number }[]): number {
  return median(
    pairs.map(({ value, rival }) => {
      assert(rival > 0, `ratio to ${rival}`);
      return value / rival;
    }),
  );
}
