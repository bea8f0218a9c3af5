/** What OpenAI-shaped servers say: pieces of a stream, usage, refusals. */
import type { Usage } from "./stream-timer.js";
import { TargetFailure } from "./target.js";

export interface Piece {
  /** Undefined: there is text, its tokens are not said; 0: nothing of the answer. */
  tokenCount: number | undefined;
  usage: Usage | undefined;
  finished: boolean;
}

type Json = Record<string, unknown>;

function asObject(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Json)
    : {};
}

function whole(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined;
}

export function readUsage(value: unknown): Usage | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const usage = value as Json;
  return {
    promptTokens: whole(usage["prompt_tokens"]),
    completionTokens: whole(usage["completion_tokens"]),
    cachedTokens: whole(asObject(usage["prompt_tokens_details"])["cached_tokens"]),
  };
}

function hasText(choice: Json): boolean {
  const delta = asObject(choice["delta"]);
  const texts = [choice["text"], delta["content"], delta["reasoning_content"], delta["reasoning"]];
  const calls = delta["tool_calls"];
  return (
    texts.some((text) => typeof text === "string" && text !== "") ||
    (Array.isArray(calls) && calls.length > 0)
  );
}

function tokensOf(choice: Json): number | undefined {
  const ids = choice["token_ids"];
  if (Array.isArray(ids)) return ids.length;
  return hasText(choice) ? undefined : 0;
}

/** Reasons of an end that is not the answer's, beside OpenAI's own. */
function isGivenUp(reason: unknown): reason is "abort" | "error" {
  return reason === "abort" || reason === "error";
}

/** One event's data. @throws TargetFailure for an error in the stream, and for what is no JSON. */
export function readPiece(data: string): Piece {
  let json: Json;
  try {
    json = asObject(JSON.parse(data));
  } catch (cause) {
    throw new TargetFailure(`an event is no JSON: ${data}`, { code: "bad_event", cause });
  }
  const { error } = json;
  if (error !== undefined && error !== null)
    throw new TargetFailure(errorText(json, data), { code: "stream_error" });
  const choices: Json[] = Array.isArray(json["choices"]) ? json["choices"].map(asObject) : [];
  const given = choices.map((choice) => choice["finish_reason"]).find(isGivenUp);
  if (given !== undefined)
    throw new TargetFailure(`the answer ended with reason ${given}`, { code: `finish_${given}` });
  const counts = choices.map(tokensOf);
  return {
    tokenCount: counts.reduce<number | undefined>(
      (sum, count) => (sum === undefined || count === undefined ? undefined : sum + count),
      0,
    ),
    usage: readUsage(json["usage"]),
    finished: choices.some((choice) => typeof choice["finish_reason"] === "string"),
  };
}

/** OpenAI's `error.message`, vLLM's older `message`, or the body itself. */
export function errorText(json: Json, body: string): string {
  const { error, message } = json;
  if (typeof error === "string") return error;
  const text = asObject(error)["message"] ?? message;
  return typeof text === "string" ? text : body;
}

/** Retry-After of seconds or of a date. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined || header.trim() === "") return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return seconds >= 0 ? seconds * 1000 : undefined;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** An answer other than 200. */
export function failureOf(
  status: number,
  { body, retryAfter, nowMs }: { body: string; retryAfter: string | undefined; nowMs: number },
): TargetFailure {
  let json: Json = {};
  try {
    json = asObject(JSON.parse(body));
  } catch {
    // A proxy's page: its text is the message.
  }
  return new TargetFailure(errorText(json, body), {
    code: `http_${status}`,
    refused: status === 429,
    retryAfterMs: retryAfterMs(retryAfter, nowMs),
  });
}
