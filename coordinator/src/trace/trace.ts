/** A request's way as spans. What may stand in them is closed: numbers, names and reasons, never a text of the user's. */

/** Header or metadata names in lower case. `traceparent` and `tracestate` of W3C are read. */
export type TraceCarrier = Readonly<Record<string, string | undefined>>;

/** Parts of a request, in the order in which they come; those that did not happen have no span. */
export type PhaseName =
  "accept" | "decode_image" | "queue" | "encode" | "prefill" | "decode" | "resume";

/** Of `performance.now()`. */
export interface PhaseTimes {
  startMs: number;
  endMs: number;
}

/** What is known of a request when it ends. */
export interface TraceOutcome {
  endMs: number;
  requestId?: string | undefined;
  promptTokens?: number | undefined;
  completionTokens?: number | undefined;
  maxTokens?: number | undefined;
  choiceCount?: number | undefined;
  tiles?: number | undefined;
  finishReasons?: readonly string[] | undefined;
  /** Code of the error that it ended with. */
  error?: string | undefined;
}

export interface RequestTrace {
  /** 32 hexadecimal digits; undefined when the request is not recorded. */
  readonly traceId: string | undefined;
  /** May come after `end`: a stream is resumed after its request has ended. */
  phase(name: PhaseName, times: PhaseTimes): void;
  /** Once. */
  end(outcome: TraceOutcome): void;
}

export interface Tracing {
  request(carrier: TraceCarrier, startMs: number): RequestTrace;
  /** Sends what is left, within a deadline. */
  close(): Promise<void>;
}

export const NO_TRACE: RequestTrace = {
  traceId: undefined,
  phase: () => undefined,
  end: () => undefined,
};

export const NO_TRACING: Tracing = {
  request: () => NO_TRACE,
  close: () => Promise.resolve(),
};
