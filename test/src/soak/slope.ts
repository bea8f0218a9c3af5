/** Whether a row of samples rises more than its noise. */
import assert from "node:assert/strict";

export interface Sample {
  /** In seconds. */
  at: number;
  value: number;
}

export interface Slope {
  /** A second. */
  perSecond: number;
  standardError: number;
}

/** By least squares; the standard error from what the line leaves over. */
export function slopeOf(samples: readonly Sample[]): Slope {
  const n = samples.length;
  assert(n >= 3, `a slope of ${n} samples`);
  const mean = (of: (sample: Sample) => number) => samples.reduce((s, x) => s + of(x), 0) / n;
  const [at, value] = [mean((s) => s.at), mean((s) => s.value)];
  const spread = samples.reduce((sum, s) => sum + (s.at - at) ** 2, 0);
  assert(spread > 0, "samples of one moment");
  const perSecond = samples.reduce((sum, s) => sum + (s.at - at) * (s.value - value), 0) / spread;
  const left = samples.reduce(
    (sum, s) => sum + (s.value - value - perSecond * (s.at - at)) ** 2,
    0,
  );
  return { perSecond, standardError: Math.sqrt(left / (n - 2) / spread) };
}

/** The first part of a run: caches fill, code is compiled, heaps find their size. */
const WARM_UP = 1 / 3;
const GROUPS = 12;
/** Standard errors. One of 12 groups is above by chance in one run of 250 (Student, 10 degrees of freedom). */
const SIGMAS = 3.3;

export interface Rise extends Slope {
  /** Over the time that was looked at, by the slope. */
  growth: number;
  /** More than noise, and more than what is allowed. */
  rises: boolean;
}

/**
 * The rule: of the samples after the warm-up, in twelve groups of equal length, the least of each is taken (what is
 * left after a collection; neighbours depend on each other, the least of groups hardly). They rise when their slope is
 * more than 3.3 standard errors above 0 and brings more than `allowed` over the time looked at.
 */
export function riseOf(samples: readonly Sample[], allowed: number): Rise {
  const last = samples.at(-1)?.at ?? 0;
  const first = (samples[0]?.at ?? 0) + (last - (samples[0]?.at ?? 0)) * WARM_UP;
  const groups = Array.from({ length: GROUPS }, (_, i) => {
    const from = first + ((last - first) * i) / GROUPS;
    const to = first + ((last - first) * (i + 1)) / GROUPS;
    const own = samples.filter(({ at }) => at >= from && (at < to || i === GROUPS - 1));
    assert(own.length > 0, `no sample from ${from} s to ${to} s`);
    return { at: (from + to) / 2, value: Math.min(...own.map(({ value }) => value)) };
  });
  const slope = slopeOf(groups);
  const growth = slope.perSecond * (last - first);
  const rises = slope.perSecond > SIGMAS * slope.standardError && growth > allowed;
  return { ...slope, growth, rises };
}
