/** One line of a batch → its answer. What passes by itself is waited for. */
import { setTimeout as delay } from "node:timers/promises";
import { ServeError, type ServeErrorCode } from "@tessera/proto";
import { asObject, Body, type Json } from "@tessera/proto/openai";
import type { Caller } from "../../access/caller.js";
import { refused, type Front } from "../../stream/front.js";
import { toHttp } from "../errors.js";
import { chatOnce } from "../routes/chat.js";
import { completionOnce } from "../routes/completions.js";
import type { Endpoint } from "./record.js";
import type { Slots } from "./slots.js";

export interface LineAnswer {
  status: number;
  body: object;
}

export interface AskedLine {
  endpoint: Endpoint;
  body: unknown;
  requestId: string;
  caller: Caller;
  signal: AbortSignal;
}

/** Behind what live requests ask for, by whatever they set. */
const PRIORITY = 100;
const MAX_PRIORITY = 2 ** 31 - 1;
/** Until the batch expires: the server is busy, or comes back. */
const WAITED_FOR = new Set<ServeErrorCode>(["OVERLOADED", "NOT_READY", "DRAINING"]);
/** The line itself may be why. */
const TRIED_AGAIN = new Set<ServeErrorCode>([
  "RANK_LOST",
  "STEP_TIMEOUT",
  "ABORTED",
  "REQUEST_EXISTS",
]);
const MAX_TRIES = 8;
const WAIT_MS = 100;
const MAX_WAIT_MS = 30_000;

/** What a line may not say: its answer is whole, and its id the batch's. */
function checkLine(body: Json): void {
  for (const key of ["stream", "resume"])
    if (body[key] === true)
      throw ServeError.field(key, "is true, must be false in a batch", "NOT_BUILT");
  if (body["request_id"] !== undefined && body["request_id"] !== null)
    throw ServeError.field("request_id", "is given, a batch names its requests", "NOT_BUILT");
}

function lowered(value: unknown): Json {
  const json = asObject(value, "body");
  checkLine(json);
  const priority = new Body(json).int32("priority") ?? 0;
  return { ...json, priority: Math.min(MAX_PRIORITY, priority + PRIORITY) };
}

/** An answer that was ended from outside is none. */
function checkWhole(body: object): object {
  const { choices } = body as { choices: { finish_reason: string | null }[] };
  if (choices.some((choice) => choice.finish_reason === "abort"))
    throw new ServeError("ABORTED", "the request was ended before its answer");
  return body;
}

async function answerOnce(front: Front, asked: AskedLine): Promise<object> {
  const body = lowered(asked.body);
  const once =
    asked.endpoint === "/v1/chat/completions"
      ? chatOnce(front, body, asked)
      : completionOnce(front, body, asked);
  return checkWhole(await once);
}

/** Doubles, spread so that lines do not come back together. */
function waitMs(attempt: number, { retryDelayMs = 0 }: ServeError): number {
  const own = WAIT_MS * 2 ** Math.min(attempt, 16) * (0.5 + Math.random());
  return Math.min(MAX_WAIT_MS, Math.max(own, retryDelayMs));
}

function again(error: ServeError, tries: number): boolean {
  return WAITED_FOR.has(error.code) || (TRIED_AGAIN.has(error.code) && tries < MAX_TRIES);
}

/** A slot is held while the line is computed, not while it waits. @throws the signal's reason */
export async function answerLine(
  front: Front,
  asked: AskedLine,
  slots: Slots,
): Promise<LineAnswer> {
  const { signal } = asked;
  let tries = 0;
  for (let attempt = 0; ; attempt++) {
    const giveBack = await slots.take(signal);
    let error: ServeError;
    try {
      return { status: 200, body: await answerOnce(front, asked) };
    } catch (thrown) {
      signal.throwIfAborted();
      error = ServeError.from(thrown);
    } finally {
      giveBack();
    }
    if (TRIED_AGAIN.has(error.code)) tries++;
    if (!again(error, tries)) return toHttp(refused(front, error));
    await delay(waitMs(attempt, error), undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  }
}
