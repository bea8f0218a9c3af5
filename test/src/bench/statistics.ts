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

/**
 * Standard error of the median, of independent values: 1.2533 σ / √n, where σ is 1.4826 times the median distance from
 * the median, so that single outliers do not count.
 */
export function medianError(values: readonly number[]): number {
  const middle = median(values);
  const sigma = 1.4826 * median(values.map((value) => Math.abs(value - middle)));
  return (1.2533 * sigma) / Math.sqrt(values.length);
}

/** Between two neighbours of a rising list. */
export function largestGap(times: readonly number[]): number {
  assert(times.length > 1, `gaps of ${times.length} times`);
  return Math.max(...times.slice(1).map((time, i) => time - (times[i] ?? NaN)));
}
