/** Failures in OpenAI's shape. */
import { ServeError, type ServeErrorCode } from "@tessera/proto";

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

export interface HttpFailure {
  status: number;
  headers: Record<string, string>;
  body: ErrorBody;
}

interface Row {
  status: number;
  type: "invalid_request_error" | "rate_limit_error" | "server_error";
  code: string;
}

function asked(status: number, code: string): Row {
  return { status, type: "invalid_request_error", code };
}
function failed(status: number, code: string): Row {
  return { status, type: "server_error", code };
}

export const HTTP_ERRORS: Record<ServeErrorCode, Row> = {
  INVALID_ARGUMENT: asked(400, "invalid_value"),
  INVALID_IMAGE: asked(400, "invalid_image"),
  CONTEXT_TOO_LONG: asked(400, "context_length_exceeded"),
  NOT_BUILT: asked(400, "unsupported_parameter"),
  UNAUTHENTICATED: asked(401, "invalid_api_key"),
  PERMISSION_DENIED: asked(403, "permission_denied"),
  MODEL_NOT_FOUND: asked(404, "model_not_found"),
  REQUEST_NOT_FOUND: asked(404, "not_found"),
  SLOW_READER: asked(408, "slow_reader"),
  REQUEST_EXISTS: asked(409, "request_exists"),
  MESSAGE_TOO_LARGE: asked(413, "request_too_large"),
  OVERLOADED: { status: 429, type: "rate_limit_error", code: "rate_limit_exceeded" },
  ABORTED: asked(499, "aborted"),
  NON_FINITE: failed(500, "non_finite"),
  STALE_EPOCH: failed(500, "stale_epoch"),
  PLAN_MISMATCH: failed(500, "plan_mismatch"),
  BAD_MODEL: failed(500, "bad_model"),
  INTERNAL: failed(500, "internal"),
  CONFIGURATION: failed(500, "configuration"),
  DRAINING: failed(503, "draining"),
  NOT_READY: failed(503, "not_ready"),
  RANK_LOST: failed(503, "rank_lost"),
  STEP_TIMEOUT: failed(503, "step_timeout"),
  DEADLINE: failed(504, "deadline"),
};

/** Where a client may come back and no time is known. */
const RETRY_MS = 1000;
const RETRIED = new Set([429, 503]);
const MAX_MESSAGE = 4096;

/** Fields of our messages → those of OpenAI's bodies. */
const NAMES: [RegExp, string][] = [
  [/^sampling\./, ""],
  [/^stop\.texts/, "stop"],
  [/^stop\.token_ids/, "stop_token_ids"],
  [/^(messages\[\d+\])\.parts(\[\d+\])/, "$1.content$2"],
  [/\.image\.data$/, ".image_url.url"],
  [/\.image\.options\./, ".image_url."],
  [/^include_stop_text$/, "include_stop_str_in_output"],
  [/^from_index$/, "last-event-id"],
  [/^token_ids$/, "prompt"],
];

function nameOf(field: string): string {
  return NAMES.reduce((name, [pattern, by]) => name.replace(pattern, by), field);
}

/** The message speaks of the fields as the client named them. */
function messageOf(error: ServeError): string {
  const said = error.violations.map(({ field, description }) => `${field}: ${description}`);
  if (said.length === 0 || error.message !== said.join("; ")) return error.message;
  return error.violations
    .map(({ field, description }) => `${nameOf(field)}: ${description}`)
    .join("; ");
}

function cut(text: string): string {
  if (text.length <= MAX_MESSAGE) return text;
  return `${text.slice(0, MAX_MESSAGE).toWellFormed()} … (${text.length} characters)`;
}

export function errorBody(
  message: string,
  of: { type: string; param?: string | undefined; code: string },
): ErrorBody {
  return {
    error: { message: cut(message), type: of.type, param: of.param ?? null, code: of.code },
  };
}

export function toHttp(error: ServeError): HttpFailure {
  const { status, type, code } = HTTP_ERRORS[error.code];
  const [first] = error.violations;
  const param = first === undefined ? undefined : nameOf(first.field);
  const headers: Record<string, string> = {};
  if (RETRIED.has(status)) {
    const retryMs = error.retryDelayMs ?? RETRY_MS;
    headers["retry-after"] = String(Math.max(1, Math.ceil(retryMs / 1e3)));
    headers["retry-after-ms"] = String(Math.ceil(retryMs));
  }
  if (status === 401) headers["www-authenticate"] = "Bearer";
  return { status, headers, body: errorBody(messageOf(error), { type, param, code }) };
}

/** What fastify itself refuses, in our terms; `bodyLimit` in bytes. */
export function fromFastify(error: unknown, bodyLimit: number): ServeError {
  const { code, statusCode, message } = error as {
    code?: unknown;
    statusCode?: unknown;
    message?: unknown;
  };
  if (error instanceof ServeError || typeof code !== "string") return ServeError.from(error);
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE")
    return ServeError.field("body", `has more than ${bodyLimit} bytes`, "MESSAGE_TOO_LARGE");
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE")
    return ServeError.field("content-type", "must be application/json");
  if (code === "FST_ERR_BAD_URL") return ServeError.field("path", "is no path of a URL");
  if (code === "FST_ERR_MAX_PARAM_LENGTH")
    return ServeError.field("path", "has a part that is longer than any id", "REQUEST_NOT_FOUND");
  if (typeof statusCode === "number" && statusCode >= 400 && statusCode < 500)
    return ServeError.field("body", String(message));
  return ServeError.from(error);
}
