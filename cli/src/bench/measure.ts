/** What a load's records say together. */
import { isGood, type Objective } from "./goodput.js";
import { CLIENT_LIMIT, INTERRUPTED, type LoadMode, type LoadResult } from "./load.js";
import type { Failure, RequestRecord } from "./record.js";
import { summarize, type Summary } from "./statistics.js";

/** A start so much behind its schedule is counted as late. */
export const LATE_MS = 10;

/** Prompts further from the asked length are worth a note. */
const LENGTH_TOLERANCE = 0.05;

export interface ErrorCount {
  code: string;
  count: number;
  /** Of the first of them. */
  message: string;
}

export interface LoadReport {
  mode: LoadMode;
  completed: number;
  failed: number;
  /** Failed by a refusal for want of room. */
  refused: number;
  interrupted: number;
  /** Due while the client's own bound of requests under way was reached. */
  notSent: number;
  wallSeconds: number;
  inputTokens: number | undefined;
  cachedTokens: number | undefined;
  outputTokens: number;
  /** Of answers that came whole, a second. */
  requestRate: number;
  inputTokenRate: number | undefined;
  outputTokenRate: number;
  goodput: { objective: Objective; count: number; share: number; rate: number } | undefined;
  ttftMs: Summary | undefined;
  tpotMs: Summary | undefined;
  itlMs: Summary | undefined;
  e2elMs: Summary | undefined;
  refusalMs: Summary | undefined;
  /** Of the refusals that said when to come again. */
  retryAfterMs: Summary | undefined;
  errors: ErrorCount[];
  /** Of an open loop: behind the schedule. */
  lateStartMs: Summary | undefined;
  lateCount: number;
  inFlightMost: number;
  wasInterrupted: boolean;
  notes: string[];
}

type Failed = RequestRecord & { failure: Failure };

function values(records: readonly RequestRecord[], of: (r: RequestRecord) => number | undefined) {
  return records.map(of).filter((value) => value !== undefined);
}

/** undefined: some answer's count is not known. */
function total(records: readonly RequestRecord[], of: (r: RequestRecord) => number | undefined) {
  const known = values(records, of);
  return known.length === records.length ? known.reduce((sum, n) => sum + n, 0) : undefined;
}

function countErrors(records: readonly Failed[]): ErrorCount[] {
  const counts = new Map<string, ErrorCount>();
  for (const { failure } of records) {
    const known = counts.get(failure.code);
    if (known !== undefined) known.count++;
    else counts.set(failure.code, { code: failure.code, count: 1, message: failure.message });
  }
  return [...counts.values()].sort((a, b) => b.count - a.count);
}

function notesOf(answers: readonly RequestRecord[], { gaps }: LoadResult): string[] {
  const notes: string[] = [];
  const estimated = answers.filter((record) => record.outputEstimated).length;
  if (estimated > 0)
    notes.push(`${estimated} answers came without usage or token ids: a chunk counts as one token`);
  const byChunk = answers.filter((record) => record.gapsBetween === "chunks");
  const chunks = byChunk.reduce((sum, { chunkCount }) => sum + chunkCount, 0);
  const perChunk = byChunk.reduce((sum, { outputTokens }) => sum + outputTokens, 0) / chunks;
  if (perChunk > 1)
    notes.push(`chunks have ${perChunk.toFixed(2)} tokens: inter-token latency is between chunks`);
  const other = answers.filter((record) => record.outputTokens !== record.wantedOutputTokens);
  if (other.length > 0)
    notes.push(`${other.length} of ${answers.length} answers are not of the asked length`);
  const { wanted, actual } = inputMeans(answers);
  if (Math.abs(actual - wanted) > wanted * LENGTH_TOLERANCE)
    notes.push(
      `prompts have ${actual.toFixed(0)} tokens on average, ${wanted.toFixed(0)} were asked for`,
    );
  if (gaps.isSample)
    notes.push(`inter-token latency is of a sample of ${gaps.limit} of ${gaps.count} gaps`);
  return notes;
}

/** Of the prompts without pictures, whose tokens no flag names. NaN: of none. */
function inputMeans(answers: readonly RequestRecord[]): { wanted: number; actual: number } {
  let [wanted, actual, count] = [0, 0, 0];
  for (const { wantedInputTokens, inputTokens, pictureCount } of answers) {
    if (wantedInputTokens === undefined || inputTokens === undefined || pictureCount > 0) continue;
    wanted += wantedInputTokens;
    actual += inputTokens;
    count++;
  }
  return { wanted: wanted / count, actual: actual / count };
}

function isFailed(record: RequestRecord): record is Failed {
  return record.failure !== undefined;
}

export function measure(
  load: LoadResult,
  { mode, objective }: { mode: LoadMode; objective: Objective | undefined },
): LoadReport {
  const { records } = load;
  const answers = records.filter((record) => !isFailed(record));
  const failures = records.filter(isFailed);
  const coded = (code: string) => failures.filter(({ failure }) => failure.code === code).length;
  const [interrupted, notSent] = [coded(INTERRUPTED), coded(CLIENT_LIMIT)];
  const refusals = failures.filter(({ failure }) => failure.refused);
  const wallSeconds = load.wallMs / 1e3;
  const perSecond = (count: number) => (wallSeconds > 0 ? count / wallSeconds : 0);
  const inputTokens = total(answers, (record) => record.inputTokens);
  const outputTokens = answers.reduce((sum, record) => sum + record.outputTokens, 0);
  const lates =
    mode.kind === "open" ? records.map((record) => record.startMs - record.scheduledMs) : [];
  return {
    mode,
    completed: answers.length,
    failed: failures.length - interrupted - notSent,
    refused: refusals.length,
    interrupted,
    notSent,
    wallSeconds,
    inputTokens,
    cachedTokens: total(answers, (record) => record.cachedTokens),
    outputTokens,
    requestRate: perSecond(answers.length),
    inputTokenRate: inputTokens === undefined ? undefined : perSecond(inputTokens),
    outputTokenRate: perSecond(outputTokens),
    goodput: goodputOf(records, objective, perSecond),
    ttftMs: summarize(values(answers, (record) => record.ttftMs)),
    tpotMs: summarize(values(answers, (record) => record.tpotMs)),
    itlMs: summarize(load.gaps.values),
    e2elMs: summarize(values(answers, (record) => record.e2elMs)),
    refusalMs: summarize(refusals.map(({ startMs, endMs }) => endMs - startMs)),
    retryAfterMs: summarize(values(refusals, (record) => record.failure?.retryAfterMs)),
    errors: countErrors(failures),
    lateStartMs: summarize(lates),
    lateCount: lates.filter((late) => late > LATE_MS).length,
    inFlightMost: load.inFlightMost,
    wasInterrupted: load.interrupted,
    notes: notesOf(answers, load),
  };
}

function goodputOf(
  records: readonly RequestRecord[],
  objective: Objective | undefined,
  perSecond: (count: number) => number,
): LoadReport["goodput"] {
  if (objective === undefined) return undefined;
  const count = records.filter((record) => isGood(record, objective)).length;
  const due = records.filter((record) => record.failure?.code !== INTERRUPTED).length;
  const share = due === 0 ? 0 : count / due;
  return { objective, count, share, rate: perSecond(count) };
}
