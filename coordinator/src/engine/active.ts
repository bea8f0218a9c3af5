/** Requests and sequences as the engine loop holds them. */
import type { Exemplar } from "../metrics/exemplar-histogram.js";
import type { RequestImages } from "./images.js";
import type { ScheduledSequence } from "../schedule/scheduler.js";
import type { ChoiceText, FinishCause, PreparedRequest, TextPiece } from "../request/types.js";
import type { ServeError } from "@tessera/proto";

/** Where a request's events go; called in order. */
export interface RequestSink {
  piece(choice: number, piece: TextPiece): void;
  /** After every choice has ended. */
  done(timings: RequestTimings): void;
  /** Instead of done. */
  failed(error: ServeError): void;
}

/** The events of a request, the first one included: it is told once the request is taken. */
export interface RequestEvents extends RequestSink {
  started(): void;
}

export interface RequestTimings {
  queueMs: number;
  encodeMs: number;
  firstTokenMs: number;
  totalMs: number;
  completionTokens: number;
}

export class Sequence implements ScheduledSequence {
  computed = 0;
  blocks: number[] = [];
  opened = false;
  lastTokenMs: number | undefined;
  readonly tokens: number[];

  constructor(
    readonly id: bigint,
    readonly request: ActiveRequest,
    readonly choice: number,
    readonly arrival: number,
    readonly text: ChoiceText,
  ) {
    this.tokens = [...request.prepared.promptIds];
  }
  get priority(): number {
    return this.request.prepared.priority;
  }
  get tokenCount(): number {
    return this.tokens.length;
  }
}

export class ActiveRequest {
  readonly acceptedMs: number;
  encodeStartMs: number | undefined;
  encodeEndMs: number | undefined;
  scheduledMs: number | undefined;
  firstTokenMs: number | undefined;
  completionTokens = 0;
  sequences: Sequence[] = [];
  ended = false;
  /** What observations of it are shown with. */
  exemplar: Exemplar | undefined;
  /** What it holds of pictures on the workers; undefined until there is room for all of it, and at the end. */
  images: RequestImages | undefined;

  constructor(
    readonly prepared: PreparedRequest,
    readonly sink: RequestSink,
    nowMs: number,
  ) {
    this.acceptedMs = nowMs;
  }
  timings(nowMs: number): RequestTimings {
    const since = (ms: number | undefined) => (ms ?? nowMs) - this.acceptedMs;
    return {
      queueMs: since(this.scheduledMs),
      encodeMs: (this.encodeEndMs ?? 0) - (this.encodeStartMs ?? 0),
      firstTokenMs: since(this.firstTokenMs),
      totalMs: since(nowMs),
      completionTokens: this.completionTokens,
    };
  }
}

export type { FinishCause };
