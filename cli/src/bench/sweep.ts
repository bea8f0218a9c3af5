/** Loads that differ in one setting, one after the other. */
import type { LoadMode } from "./load.js";
import type { LoadReport } from "./measure.js";
import { MAX_CONCURRENCY, MAX_POINTS } from "./limits.js";

export const SWEEPS = ["rates", "concurrency"] as const;
export type SweepKind = (typeof SWEEPS)[number];

export interface Sweep {
  by: SweepKind;
  values: number[];
}

export interface SweepPoint {
  /** Requests a second, or lanes. */
  value: number;
  report: LoadReport;
}

/** `rates 1,2,4,8`. @throws Error naming what is wrong. */
export function parseSweep(words: readonly string[]): Sweep {
  const [by, list, ...rest] = words;
  const kind = SWEEPS.find((name) => name === by);
  if (kind === undefined || list === undefined || rest.length > 0)
    throw new Error(`--sweep ${words.join(" ")}: must be ${SWEEPS.join(" or ")} and 1,2,4,…`);
  const values = list.split(",").map((text) => (text.trim() === "" ? NaN : Number(text)));
  const wrong = values.find((value) => !isPoint(value, kind));
  if (wrong !== undefined)
    throw new Error(
      kind === "rates"
        ? `--sweep rates ${list}: must be numbers above 0`
        : `--sweep concurrency ${list}: must be whole numbers, 1 to ${MAX_CONCURRENCY}`,
    );
  if (values.length > MAX_POINTS)
    throw new Error(`--sweep: has ${values.length} points, at most ${MAX_POINTS}`);
  return { by: kind, values };
}

function isPoint(value: number, kind: SweepKind): boolean {
  if (kind === "rates") return value > 0 && value < Infinity;
  return Number.isSafeInteger(value) && value >= 1 && value <= MAX_CONCURRENCY;
}

export function modeOf({ by }: Sweep, value: number, burstiness: number): LoadMode {
  return by === "rates"
    ? { kind: "open", rate: value, burstiness }
    : { kind: "closed", concurrency: value };
}
