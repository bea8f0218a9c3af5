/** An HTTP call: who makes it, under which id, until when. */
import { createHash, randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { IncomingMessage } from "node:http";
import type { FastifyReply, FastifyRequest } from "fastify";
import { ServeError } from "@tessera/proto";
import { MAX_PROMPTS } from "@tessera/proto/openai";
import type { Caller } from "../access/caller.js";
import type { TraceCarrier } from "../trace/trace.js";

/** From the request's head to the last byte of its answer. */
export const CALL_DEADLINE_MS = 30 * 60_000;
const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

export const CALLER = "caller";

/** Of a route that asks for a key. */
export function callerOf(request: FastifyRequest): Caller {
  return request.getDecorator<Caller>(CALLER);
}

/** Names the answer after its request. What cannot be an id is refused elsewhere, and no header can carry it. */
export function nameAnswer(reply: FastifyReply, id: string): void {
  if (REQUEST_ID.test(id)) reply.header("x-request-id", id);
}

/** Of one prompt among several: as long as an id may be. */
export function partId(id: string, part: number): string {
  const own = `${id}-${part}`;
  if (REQUEST_ID.test(own) || !REQUEST_ID.test(id)) return own;
  return `${createHash("sha256").update(id).digest("hex").slice(0, 32)}-${part}`;
}

/** The client's own where it fits, else a new one. */
export function requestIdOf({ headers }: Pick<IncomingMessage, "headers">): string {
  const given = headers["x-request-id"];
  if (typeof given === "string" && REQUEST_ID.test(given)) return given;
  return `req-${randomUUID()}`;
}

/** Aborts with ABORTED when the connection is cut before the answer's end, DEADLINE when its time is up. */
export function signalOf({ raw }: Pick<FastifyReply, "raw">): AbortSignal {
  const abort = new AbortController();
  const timer = setTimeout(
    () => abort.abort(new ServeError("DEADLINE", `no end within ${CALL_DEADLINE_MS} ms`)),
    CALL_DEADLINE_MS,
  );
  timer.unref();
  const closed = () => {
    clearTimeout(timer);
    if (!raw.writableFinished)
      abort.abort(new ServeError("ABORTED", "the client closed the connection"));
  };
  if (raw.destroyed) closed();
  else raw.once("close", closed);
  return abort.signal;
}

/** Of one signal: each request of an answer listens a few times. */
const MAX_LISTENERS = 4 * MAX_PROMPTS;

/** Aborts with the first of both. */
export function eitherOf(one: AbortSignal, other: AbortSignal): AbortSignal {
  const signal = AbortSignal.any([one, other]);
  setMaxListeners(MAX_LISTENERS, signal);
  return signal;
}

/** What W3C's trace context says in the call's headers. */
function carrierOf({ headers }: FastifyRequest): TraceCarrier {
  const of = (name: string) => headers[name]?.toString();
  return { traceparent: of("traceparent"), tracestate: of("tracestate") };
}

/** What a route knows of its call. */
export interface Call {
  caller: Caller;
  signal: AbortSignal;
  carrier?: TraceCarrier;
  /** Where the body names none. */
  requestId: string;
}

/** Of a route that asks for a key. */
export function callOf(request: FastifyRequest, reply: FastifyReply): Required<Call> {
  return {
    caller: callerOf(request),
    signal: signalOf(reply),
    carrier: carrierOf(request),
    requestId: request.id,
  };
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1e3);
}

/** `config` of a route that asks for no key. */
export const OPEN_ROUTE = { open: true };
