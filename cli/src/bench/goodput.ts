/** Which requests were answered as fast as promised. */
import type { RequestRecord } from "./record.js";

/** Limits in milliseconds; itl is on the 99th percentile of a request's own gaps. */
export type Objective = Partial<Record<ObjectiveName, number>>;
export const OBJECTIVES = ["ttft", "tpot", "itl", "e2el"] as const;
export type ObjectiveName = (typeof OBJECTIVES)[number];

function isObjective(name: string): name is ObjectiveName {
  return (OBJECTIVES as readonly string[]).includes(name);
}

/** `ttft:500`, `itl:100` … @throws Error naming the one that is wrong. */
export function parseObjective(texts: readonly string[]): Objective {
  const objective: Objective = {};
  for (const text of texts) {
    const [name = "", value = "", ...rest] = text.split(":");
    const limit = value.trim() === "" ? NaN : Number(value);
    if (!isObjective(name) || rest.length > 0 || !(limit > 0) || limit === Infinity)
      throw new Error(
        `--goodput ${text}: must be ${OBJECTIVES.join(", ")} and milliseconds, as ttft:500`,
      );
    if (objective[name] !== undefined) throw new Error(`--goodput ${text}: ${name} is there twice`);
    objective[name] = limit;
  }
  return objective;
}

/** An answer of one token has no time between tokens: that limit is kept. What failed is never good. */
export function isGood(record: RequestRecord, objective: Objective): boolean {
  if (record.failure !== undefined) return false;
  const values: Record<ObjectiveName, number | undefined> = {
    ttft: record.ttftMs,
    tpot: record.tpotMs,
    itl: record.itlP99Ms,
    e2el: record.e2elMs,
  };
  return OBJECTIVES.every((name) => (values[name] ?? 0) <= (objective[name] ?? Infinity));
}
