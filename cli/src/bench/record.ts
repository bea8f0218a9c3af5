/** What is kept of one request. */
import { percentileOf } from "./statistics.js";
import type { StreamTimer, Usage } from "./stream-timer.js";
import type { TargetFailure } from "./target.js";
import type { Prompt } from "./workload.js";

export interface Failure {
  code: string;
  message: string;
  refused: boolean;
  retryAfterMs: number | undefined;
}

/** Times are milliseconds from the load's start, durations milliseconds. */
export interface RequestRecord {
  index: number;
  /** By the arrival process; of a closed loop when its lane was free. */
  scheduledMs: number;
  startMs: number;
  endMs: number;
  ttftMs: number | undefined;
  /** Start → last token. */
  e2elMs: number | undefined;
  /** Of the tokens after the first. */
  tpotMs: number | undefined;
  /** The 99th percentile of this request's gaps. */
  itlP99Ms: number | undefined;
  wantedInputTokens: number | undefined;
  wantedOutputTokens: number;
  inputTokens: number | undefined;
  cachedTokens: number | undefined;
  outputTokens: number;
  /** Neither usage nor token ids said it: one a chunk. */
  outputEstimated: boolean;
  chunkCount: number;
  /** The gaps are between tokens; chunks where some chunk's tokens were not said. */
  gapsBetween: "tokens" | "chunks";
  pictureCount: number;
  prefix: number | undefined;
  failure: Failure | undefined;
  /** With --details. */
  gapsMs?: readonly number[];
}

export interface Span {
  scheduledMs: number;
  startMs: number;
  endMs: number;
}

type Head = Pick<
  RequestRecord,
  "index" | "wantedInputTokens" | "wantedOutputTokens" | "pictureCount" | "prefix"
>;

function headOf({ index, inputTokens, outputTokens, pictures, prefix }: Prompt): Head {
  return {
    index,
    wantedInputTokens: inputTokens,
    wantedOutputTokens: outputTokens,
    pictureCount: pictures.length,
    prefix,
  };
}

/** An answer that came whole. */
export function answered(
  prompt: Prompt,
  span: Span,
  { timer, usage, details }: { timer: StreamTimer; usage: Usage; details: boolean },
): RequestRecord {
  const { ttftMs, lastMs, gapsMs, chunkCount, tokenCount } = timer.times;
  const known = usage.completionTokens ?? tokenCount;
  const outputTokens = known ?? chunkCount;
  const decodeMs = lastMs !== undefined && ttftMs !== undefined ? lastMs - ttftMs : undefined;
  return {
    ...headOf(prompt),
    ...span,
    ttftMs,
    e2elMs: lastMs,
    tpotMs: decodeMs === undefined || outputTokens < 2 ? undefined : decodeMs / (outputTokens - 1),
    itlP99Ms: gapsMs.length === 0 ? undefined : percentileOf([...gapsMs].sort(ascending), 0.99),
    inputTokens: usage.promptTokens,
    cachedTokens: usage.cachedTokens,
    outputTokens,
    outputEstimated: known === undefined,
    chunkCount,
    gapsBetween: tokenCount === undefined ? "chunks" : "tokens",
    failure: undefined,
    ...(details ? { gapsMs } : {}),
  };
}

/** What came of an answer before it failed is in its counts, not in the latencies. */
export function failed(
  prompt: Prompt,
  span: Span,
  { timer, failure }: { timer: StreamTimer; failure: TargetFailure },
): RequestRecord {
  const { chunkCount, tokenCount } = timer.times;
  const { code, message, refused, retryAfterMs } = failure;
  return {
    ...headOf(prompt),
    ...span,
    ttftMs: undefined,
    e2elMs: undefined,
    tpotMs: undefined,
    itlP99Ms: undefined,
    inputTokens: undefined,
    cachedTokens: undefined,
    outputTokens: tokenCount ?? chunkCount,
    outputEstimated: tokenCount === undefined,
    chunkCount,
    gapsBetween: tokenCount === undefined ? "chunks" : "tokens",
    failure: { code, message, refused, retryAfterMs },
  };
}

function ascending(a: number, b: number): number {
  return a - b;
}
