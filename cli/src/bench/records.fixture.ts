/** Records for tests of what is said of them. */
import type { RequestRecord } from "./record.js";

/** A fast answer of 8 tokens, started one second after the other. */
export function answerOf(index: number): RequestRecord {
  return {
    index,
    scheduledMs: index * 1000,
    startMs: index * 1000,
    endMs: index * 1000 + 110,
    ttftMs: 40,
    e2elMs: 110,
    tpotMs: 10,
    itlP99Ms: 12,
    wantedInputTokens: 64,
    wantedOutputTokens: 8,
    inputTokens: 64,
    cachedTokens: 0,
    outputTokens: 8,
    outputEstimated: false,
    chunkCount: 8,
    gapsBetween: "tokens",
    pictureCount: 0,
    prefix: undefined,
    failure: undefined,
  };
}
