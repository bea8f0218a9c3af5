/**
 * The closed list of operating failures, and their way over gRPC: a status, `google.rpc` details in the trailer
 * `grpc-status-details-bin`, and back.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageShape,
} from "@bufbuild/protobuf";
import { anyPack, anyUnpack, type Any } from "@bufbuild/protobuf/wkt";
import { Metadata, status, type StatusObject } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { ErrorCode } from "./gen/tessera/v1/errors_pb.js";

export type ServeErrorCode = Exclude<keyof typeof ErrorCode, "UNSPECIFIED">;

/** gRPC status of each code. */
export const GRPC_STATUS: Record<ServeErrorCode, status> = {
  INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  INVALID_IMAGE: status.INVALID_ARGUMENT,
  CONTEXT_TOO_LONG: status.INVALID_ARGUMENT,
  MESSAGE_TOO_LARGE: status.RESOURCE_EXHAUSTED,
  MODEL_NOT_FOUND: status.NOT_FOUND,
  REQUEST_NOT_FOUND: status.NOT_FOUND,
  REQUEST_EXISTS: status.ALREADY_EXISTS,
  NOT_BUILT: status.UNIMPLEMENTED,
  OVERLOADED: status.RESOURCE_EXHAUSTED,
  DRAINING: status.UNAVAILABLE,
  NOT_READY: status.UNAVAILABLE,
  RANK_LOST: status.UNAVAILABLE,
  STEP_TIMEOUT: status.UNAVAILABLE,
  DEADLINE: status.DEADLINE_EXCEEDED,
  ABORTED: status.CANCELLED,
  NON_FINITE: status.INTERNAL,
  STALE_EPOCH: status.FAILED_PRECONDITION,
  PLAN_MISMATCH: status.FAILED_PRECONDITION,
  BAD_MODEL: status.FAILED_PRECONDITION,
  SLOW_READER: status.RESOURCE_EXHAUSTED,
  INTERNAL: status.INTERNAL,
  CONFIGURATION: status.INVALID_ARGUMENT,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  PERMISSION_DENIED: status.PERMISSION_DENIED,
};

export interface FieldViolation {
  /** Path of the field, as `messages[0].parts[1].image.data`. */
  field: string;
  description: string;
}

export interface ServeErrorOptions {
  violations?: FieldViolation[];
  /** When trying again may help. */
  retryDelayMs?: number;
  /** Name of the quota that is used up. */
  quota?: string;
  /** Further facts: rank, limit, value, epoch. */
  metadata?: Record<string, string>;
  cause?: unknown;
}

/** What a trailer holds of a refusal: HTTP/2 headers have a limit of 64 KiB, texts are up to 4 bytes a character. */
const MAX_VIOLATIONS = 16;
const MAX_MESSAGE = 1024;
const MAX_FIELD_TEXT = 256;

function shorten(text: string, limit: number): string {
  if (text.length <= limit) return text;
  return `${text.slice(0, limit).toWellFormed()} … (${text.length} characters)`;
}

/** A failure of operation: its message names the field, the limit and the value. */
export class ServeError extends Error {
  readonly code: ServeErrorCode;
  readonly violations: readonly FieldViolation[];
  readonly retryDelayMs: number | undefined;
  readonly quota: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: ServeErrorCode, message: string, options: ServeErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ServeError";
    this.code = code;
    this.violations = options.violations ?? [];
    this.retryDelayMs = options.retryDelayMs;
    this.quota = options.quota;
    this.metadata = options.metadata ?? {};
  }

  /** A field that is wrong: one violation, whose text is also the message. */
  static field(
    field: string,
    description: string,
    code: ServeErrorCode = "INVALID_ARGUMENT",
  ): ServeError {
    return new ServeError(code, `${field}: ${description}`, {
      violations: [{ field, description }],
    });
  }

  static from(error: unknown): ServeError {
    if (error instanceof ServeError) return error;
    return new ServeError("INTERNAL", error instanceof Error ? error.message : String(error), {
      cause: error,
    });
  }

  get grpcStatus(): status {
    return GRPC_STATUS[this.code];
  }

  /** What a grpc-js server answers with. */
  toStatus(): Partial<StatusObject> & { code: status; details: string; metadata: Metadata } {
    const message = shorten(this.message, MAX_MESSAGE);
    const details: Any[] = [
      anyPack(
        ErrorInfoSchema,
        create(ErrorInfoSchema, {
          reason: this.code,
          domain: "tessera",
          metadata: { ...this.metadata },
        }),
      ),
    ];
    if (this.violations.length > 0)
      details.push(
        anyPack(
          BadRequestSchema,
          create(BadRequestSchema, {
            fieldViolations: this.violations
              .slice(0, MAX_VIOLATIONS)
              .map(({ field, description }) => ({
                field: shorten(field, MAX_FIELD_TEXT),
                description: shorten(description, MAX_FIELD_TEXT),
              })),
          }),
        ),
      );
    if (this.retryDelayMs !== undefined)
      details.push(
        anyPack(
          RetryInfoSchema,
          create(RetryInfoSchema, { retryDelay: millisToDuration(this.retryDelayMs) }),
        ),
      );
    if (this.quota !== undefined)
      details.push(
        anyPack(
          QuotaFailureSchema,
          create(QuotaFailureSchema, {
            violations: [{ subject: this.quota, description: message }],
          }),
        ),
      );
    const body = create(StatusSchema, { code: this.grpcStatus, message, details });
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, body)));
    return { code: this.grpcStatus, details: message, metadata };
  }

  /** Reads what a grpc-js client got; undefined when the peer sent no Tessera details, or damaged ones. */
  static fromStatus(error: { details?: string; metadata?: Metadata }): ServeError | undefined {
    const raw = error.metadata?.get("grpc-status-details-bin")[0];
    if (!(raw instanceof Uint8Array)) return undefined;
    try {
      return readStatus(raw, error);
    } catch {
      return undefined;
    }
  }
}

/** @throws Error on bytes that are no google.rpc.Status. */
function readStatus(raw: Uint8Array, cause: unknown): ServeError | undefined {
  const body = fromBinary(StatusSchema, raw);
  const info = findDetail(body.details, ErrorInfoSchema);
  if (info === undefined || !Object.hasOwn(GRPC_STATUS, info.reason)) return undefined;
  const bad = findDetail(body.details, BadRequestSchema);
  const retry = findDetail(body.details, RetryInfoSchema)?.retryDelay;
  const quota = findDetail(body.details, QuotaFailureSchema)?.violations[0];
  return new ServeError(info.reason as ServeErrorCode, body.message, {
    metadata: info.metadata,
    violations:
      bad?.fieldViolations.map(({ field, description }) => ({ field, description })) ?? [],
    ...(retry === undefined ? {} : { retryDelayMs: durationToMillis(retry) }),
    ...(quota === undefined ? {} : { quota: quota.subject }),
    cause,
  });
}

function findDetail<D extends DescMessage>(details: Any[], schema: D): MessageShape<D> | undefined {
  for (const detail of details) {
    const message = anyUnpack(detail, schema);
    if (message !== undefined) return message;
  }
  return undefined;
}

export function millisToDuration(millis: number): { seconds: bigint; nanos: number } {
  const nanos = Math.round((millis % 1e3) * 1e6);
  const seconds = BigInt(Math.trunc(millis / 1e3) + Math.trunc(nanos / 1e9));
  return { seconds, nanos: nanos % 1e9 };
}

export function durationToMillis(duration: { seconds: bigint; nanos: number }): number {
  return Number(duration.seconds) * 1e3 + duration.nanos / 1e6;
}
