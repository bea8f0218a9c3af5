/** When requests of an open loop start, whatever becomes of those before them. */
import { randomExponential, randomGamma } from "d3-random";
import type { Source } from "./random.js";

export interface ArrivalOptions {
  /** Requests a second; Infinity: all at once. */
  rate: number;
  /** Shape of the gamma distribution of the gaps, as vLLM's: 1 Poisson, below 1 in bursts, above 1 evenly. */
  burstiness: number;
}

/** Milliseconds from the start, without end, rising. The gaps' mean is 1000 / rate. */
export function* arrivalTimesMs(options: ArrivalOptions, source: Source): Generator<number> {
  const { rate, burstiness } = options;
  const nextGap = gapSource(rate, burstiness, source);
  for (let at = nextGap(); ; at += nextGap()) yield at;
}

function gapSource(rate: number, burstiness: number, source: Source): () => number {
  if (rate === Infinity) return () => 0;
  if (burstiness === 1) return randomExponential.source(source)(rate / 1000);
  return randomGamma.source(source)(burstiness, 1000 / (rate * burstiness));
}
