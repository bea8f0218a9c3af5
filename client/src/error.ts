/** What a call of the SDK fails with. */
import { status, type ServiceError } from "@grpc/grpc-js";
import { ServeError, type FieldViolation, type ServeErrorCode } from "@tessera/proto";

/**
 * The server's code; ABORTED and DEADLINE also when the call ended here; TRANSPORT when the server said none;
 * OUT_OF_ORDER when an event came twice or is missing.
 */
export type TesseraErrorCode = ServeErrorCode | "TRANSPORT" | "OUT_OF_ORDER";

/** Codes of the statuses that gRPC makes by itself. */
const OWN_CODES: Partial<Record<status, TesseraErrorCode>> = {
  [status.CANCELLED]: "ABORTED",
  [status.DEADLINE_EXCEEDED]: "DEADLINE",
};

/** What grpc-js puts behind a connection's failure when name resolution had nothing to say. */
const EMPTY_NOTE = /\.? Resolution note: $/;

/** What gRPC calls a connection that goes while a call is under way: a reset stream is INTERNAL or CANCELLED. */
function isCut(grpcStatus: status, details: string): boolean {
  if (grpcStatus === status.INTERNAL) return details.includes("RST_STREAM");
  return grpcStatus === status.UNAVAILABLE || grpcStatus === status.CANCELLED;
}

interface Facts {
  code: TesseraErrorCode;
  grpcStatus: status;
  violations?: readonly FieldViolation[];
  retryDelayMs?: number | undefined;
  cut?: boolean;
  cause: unknown;
}

export class TesseraError extends Error {
  readonly code: TesseraErrorCode;
  readonly grpcStatus: status;
  /** Fields that are wrong, as `sampling.top_p`. */
  readonly violations: readonly FieldViolation[];
  /** When trying again may help. */
  readonly retryDelayMs: number | undefined;
  /** The connection went, or was not there; the server said nothing of the call. */
  readonly cut: boolean;

  private constructor(message: string, facts: Facts) {
    super(message, { cause: facts.cause });
    this.name = "TesseraError";
    this.code = facts.code;
    this.grpcStatus = facts.grpcStatus;
    this.violations = facts.violations ?? [];
    this.retryDelayMs = facts.retryDelayMs;
    this.cut = facts.cut ?? false;
  }

  static from(error: unknown): TesseraError {
    if (error instanceof TesseraError) return error;
    const own = error instanceof ServeError ? error : undefined;
    const call = error instanceof Error && "code" in error && own === undefined;
    const service = call ? (error as ServiceError) : undefined;
    const said = own ?? (service === undefined ? undefined : ServeError.fromStatus(service));
    const grpcStatus = own?.grpcStatus ?? service?.code ?? status.UNKNOWN;
    const text = service?.details ?? (error instanceof Error ? error.message : String(error));
    return new TesseraError(said?.message ?? text.replace(EMPTY_NOTE, ""), {
      code: said?.code ?? OWN_CODES[grpcStatus] ?? "TRANSPORT",
      grpcStatus,
      violations: said?.violations ?? [],
      retryDelayMs: said?.retryDelayMs,
      cut: said === undefined && service !== undefined && isCut(grpcStatus, text),
      cause: error,
    });
  }

  /** An event of a stream is not the one that was due. */
  static outOfOrder(index: bigint, due: bigint): TesseraError {
    return new TesseraError(`event ${index} of the stream came where ${due} was due`, {
      code: "OUT_OF_ORDER",
      grpcStatus: status.DATA_LOSS,
      cause: undefined,
    });
  }

  /** A stream ended, without an error, before its last event. */
  static cutShort(due: bigint): TesseraError {
    return new TesseraError(`the stream ended where event ${due} was due`, {
      code: "OUT_OF_ORDER",
      grpcStatus: status.DATA_LOSS,
      cause: undefined,
    });
  }

  /** The caller's signal ended the call. */
  static aborted(signal: AbortSignal): TesseraError {
    const cause: unknown = signal.reason;
    return new TesseraError("the call was aborted by its signal", {
      code: "ABORTED",
      grpcStatus: status.CANCELLED,
      cause,
    });
  }

  /**
   * The server or the network says that trying again may help, provided nothing has started. A rank that was lost, or
   * late, was at work on the request: it is not computed a second time behind the caller's back.
   */
  get retryable(): boolean {
    if (this.code === "RANK_LOST" || this.code === "STEP_TIMEOUT") return false;
    if (this.grpcStatus === status.UNAVAILABLE) return this.code !== "DRAINING";
    return this.grpcStatus === status.RESOURCE_EXHAUSTED && this.retryDelayMs !== undefined;
  }

  /** Another server may take the call that this one did not. */
  get movable(): boolean {
    return this.retryable || this.code === "DRAINING";
  }
}
