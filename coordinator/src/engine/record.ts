/** What is counted, traced and logged of a request. Never what it says: no prompt, no answer, no text of its fields. */
import type { ServeError, ServeErrorCode } from "@tessera/proto";
import type { Logger } from "pino";
import type { CoordinatorMetrics, CutCause } from "../metrics.js";
import type { Exemplar } from "../metrics/exemplar-histogram.js";
import { REQUEST_ID, type PreparedRequest, type TextPiece } from "../request/index.js";
import type { PhaseName, RequestTrace, TraceOutcome } from "../trace/trace.js";
import type { ActiveRequest, RequestTimings } from "./active.js";

const CUTS: Partial<Record<string, CutCause>> = {
  ABORTED: "disconnect",
  DEADLINE: "deadline",
  SLOW_READER: "slow_reader",
};

/** Of an error's field the part that is ours: names that a user chose come after it. */
function outerField(field: string): string {
  return /^[a-z_]{1,40}/.exec(field)?.[0] ?? "";
}

function span(from: number | undefined, to: number | undefined): number | undefined {
  return from === undefined || to === undefined ? undefined : (to - from) / 1e3;
}

export class RequestRecord {
  private readonly startMs = performance.now();
  private admittedMs: number | undefined;
  private preparedMs: number | undefined;
  private prepared: PreparedRequest | undefined;
  private readonly finishReasons: string[] = [];
  /** Tokens by choice. */
  private readonly made = new Map<number, number>();
  private requestId: string | undefined;

  constructor(
    private readonly to: { metrics: CoordinatorMetrics; log: Logger; trace: RequestTrace },
    /** Of the call. */
    private readonly signal: AbortSignal,
    /** As the client gave it; what is no id is its text. */
    givenId: string | undefined,
  ) {
    if (givenId !== undefined && REQUEST_ID.test(givenId)) this.requestId = givenId;
  }

  /** Of a request that has an id. */
  get exemplar(): Exemplar {
    const { traceId } = this.to.trace;
    const requestId = this.requestId ?? "";
    return traceId === undefined
      ? { request_id: requestId }
      : { request_id: requestId, trace_id: traceId };
  }

  admitted(requestId: string): void {
    this.requestId = requestId;
    this.admittedMs = performance.now();
    this.phase("accept", this.startMs, this.admittedMs);
  }

  accepted(prepared: PreparedRequest): void {
    const { metrics, log } = this.to;
    this.prepared = prepared;
    this.preparedMs = performance.now();
    this.phase("decode_image", this.admittedMs, this.preparedMs);
    const promptTokens = prepared.promptIds.length;
    metrics.requests.inc();
    metrics.promptTokens.inc(promptTokens);
    metrics.requestMetrics.accepted(promptTokens);
    metrics.tiles.inc(prepared.tileCount);
    metrics.tilesReused.inc(prepared.tileCount - prepared.tiles.length);
    log.debug(
      {
        ...this.names(),
        promptTokens,
        tiles: prepared.tileCount,
        choices: prepared.choiceCount,
        maxTokens: prepared.maxTokens,
      },
      "request accepted",
    );
  }

  piece(choice: number, { tokens, finish }: TextPiece): void {
    this.made.set(choice, (this.made.get(choice) ?? 0) + tokens.length);
    if (finish === undefined) return;
    this.finishReasons.push(finish.reason);
    this.to.metrics.finished.inc({ finished_reason: finish.reason });
  }

  done(active: ActiveRequest, timings: RequestTimings): void {
    const { metrics, log } = this.to;
    const endMs = active.acceptedMs + timings.totalMs;
    const { prepared, scheduledMs, firstTokenMs } = active;
    const { completionTokens, cachedTokens } = timings;
    const figures = {
      e2e: timings.totalMs / 1e3,
      queue: timings.queueMs / 1e3,
      encode: prepared.tileCount > 0 ? timings.encodeMs / 1e3 : undefined,
      prefill: span(scheduledMs, firstTokenMs),
      decode: span(firstTokenMs, endMs),
      inference: span(scheduledMs, endMs),
      prefillTokens:
        firstTokenMs === undefined ? undefined : prepared.promptIds.length - cachedTokens,
      completionTokens,
      mostTokens: Math.max(0, ...this.made.values()),
      choiceCount: prepared.choiceCount,
      maxTokens: prepared.maxTokens,
    };
    metrics.requestMetrics.ended(figures, this.exemplar);
    if (this.finishReasons.includes("aborted")) this.cut("ABORTED");
    this.phases(active, endMs);
    this.end({ endMs, completionTokens, finishReasons: this.finishReasons });
    const { queueMs, encodeMs, firstTokenMs: ttftMs, totalMs } = timings;
    const finish = { reasons: this.finishReasons, completionTokens };
    log.info(
      { ...this.names(), ...finish, queueMs, encodeMs, ttftMs, totalMs },
      "request finished",
    );
  }

  /** Instead of done, at any time. */
  failed(error: ServeError, active: ActiveRequest | undefined): void {
    const { log } = this.to;
    const endMs = performance.now();
    if (CUTS[error.code] !== undefined) this.cut(error.code);
    if (active !== undefined) this.phases(active, endMs);
    this.end({ endMs, completionTokens: active?.completionTokens, error: error.code });
    const fields = error.violations.map(({ field }) => outerField(field));
    log.info(
      { ...this.names(), code: error.code, fields, totalMs: endMs - this.startMs },
      this.prepared === undefined ? "request refused" : "request failed",
    );
  }

  /** An abort that did not come through the call's end was asked for. */
  private cut(code: ServeErrorCode): void {
    const { code: ended } = (this.signal.reason ?? {}) as Partial<ServeError>;
    const cause = CUTS[ended ?? ""] ?? (code === "ABORTED" ? "aborted" : CUTS[code]);
    if (cause !== undefined) this.to.metrics.cut.inc({ cause });
  }

  private names() {
    const { traceId } = this.to.trace;
    return traceId === undefined
      ? { requestId: this.requestId }
      : { requestId: this.requestId, traceId };
  }

  private phase(name: PhaseName, startMs: number | undefined, endMs: number | undefined): void {
    if (startMs !== undefined && endMs !== undefined) this.to.trace.phase(name, { startMs, endMs });
  }

  /** What the request did not come to ends with it, or is not there. */
  private phases(active: ActiveRequest, endMs: number): void {
    const { acceptedMs, scheduledMs, encodeStartMs, encodeEndMs, firstTokenMs } = active;
    this.phase("queue", acceptedMs, scheduledMs ?? endMs);
    this.phase("encode", encodeStartMs, encodeEndMs ?? endMs);
    this.phase("prefill", scheduledMs, firstTokenMs ?? endMs);
    this.phase("decode", firstTokenMs, endMs);
  }

  private end(outcome: TraceOutcome): void {
    const { prepared, requestId } = this;
    this.to.trace.end({
      requestId,
      promptTokens: prepared?.promptIds.length,
      maxTokens: prepared?.maxTokens,
      choiceCount: prepared?.choiceCount,
      tiles: prepared?.tileCount,
      ...outcome,
    });
  }
}
