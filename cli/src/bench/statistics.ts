/** What is said of many measurements. */
import type { Source } from "./random.js";

export interface Summary {
  count: number;
  mean: number;
  median: number;
  p90: number;
  p95: number;
  p99: number;
  least: number;
  most: number;
  /** Of the values themselves, not of a sample's estimate. */
  deviation: number;
}

/** The nearest-rank percentile of rising values: the least that at least `part` (0 … 1) of them do not exceed. */
export function percentileOf(sorted: ArrayLike<number>, part: number): number {
  if (sorted.length === 0) throw new RangeError("percentile: of no values");
  // 0.95 × 20 is 19.000000000000000x in some products: what is within rounding of a rank is that rank.
  const rank = Math.ceil(part * sorted.length - 1e-9);
  return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1] ?? NaN;
}

/** undefined: of no values. */
export function summarize(values: ArrayLike<number>): Summary | undefined {
  const count = values.length;
  if (count === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  const mean = sorted.reduce((sum, value) => sum + value, 0) / count;
  const square = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  const lower = sorted[(count - 1) >> 1] ?? NaN;
  const upper = sorted[count >> 1] ?? NaN;
  return {
    count,
    mean,
    median: (lower + upper) / 2,
    p90: percentileOf(sorted, 0.9),
    p95: percentileOf(sorted, 0.95),
    p99: percentileOf(sorted, 0.99),
    least: sorted[0] ?? NaN,
    most: sorted[count - 1] ?? NaN,
    deviation: Math.sqrt(square),
  };
}

/** Values of which a load may have millions: beyond its limit a uniform sample of them, drawn as they come. */
export class Reservoir {
  private readonly kept: number[] = [];
  /** Of all that came, kept or not. */
  count = 0;

  constructor(
    readonly limit: number,
    private readonly source: Source,
  ) {}

  add(value: number): void {
    this.count++;
    if (this.kept.length < this.limit) this.kept.push(value);
    else {
      const place = Math.floor(this.source() * this.count);
      if (place < this.limit) this.kept[place] = value;
    }
  }
  get values(): readonly number[] {
    return this.kept;
  }
  get isSample(): boolean {
    return this.count > this.kept.length;
  }
}
