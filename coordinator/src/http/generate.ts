/** A request's events → a whole answer, or server-sent events. */
import type { FastifyReply } from "fastify";
import { ServeError, type ServeErrorCode } from "@tessera/proto";
import type { Chunks } from "@tessera/proto/openai";
import { ErrorCode } from "@tessera/proto/gen/tessera/v1/errors_pb.js";
import {
  FinishReason,
  type Event,
  type Finished,
  type GenerateOnceResponse,
  type GenerateRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { collecting, Collector } from "../stream/collector.js";
import { refused, type Front } from "../stream/front.js";
import type { Reader } from "../stream/streams.js";
import type { TraceCarrier } from "../trace/trace.js";
import { eitherOf, type Call } from "./call.js";
import { EventStream } from "./event-stream.js";

/** Of a choice that failed; there is no chunk for it. */
function failureOf({ reason, errorCode, errorMessage }: Finished): ServeError | undefined {
  if (reason !== FinishReason.ERROR) return undefined;
  const name = ErrorCode[errorCode] as ServeErrorCode | "UNSPECIFIED" | undefined;
  const code = name === undefined || name === "UNSPECIFIED" ? "INTERNAL" : name;
  return new ServeError(code, errorMessage);
}

/** The failure of a choice that this event ends, also of one that was ended from outside. */
export function checkEvent({ kind }: Event): ServeError | undefined {
  if (kind.case !== "finished") return undefined;
  if (kind.value.reason === FinishReason.ABORTED)
    return new ServeError("ABORTED", "the request was ended before its answer");
  return failureOf(kind.value);
}

/** @throws ServeError, of a choice that failed as well */
export async function generateOnce(
  { streams }: Front,
  message: GenerateRequest,
  { caller, signal, carrier = {} }: Omit<Call, "requestId">,
): Promise<GenerateOnceResponse> {
  const collector = new Collector();
  await streams.generate(message, caller, { ...collecting(collector, signal), carrier });
  for (const { finished } of collector.response.choices) {
    const failure = finished === undefined ? undefined : failureOf(finished);
    if (failure !== undefined) throw failure;
  }
  return collector.response;
}

/** What a stream's events become. */
export interface Mapping {
  chunks: Chunks;
  /** The line that names an event for Last-Event-ID; undefined where the stream cannot be resumed. */
  idOf?: ((event: Event) => string | undefined) | undefined;
  /** Events before are known to the client. */
  fromIndex?: number;
}

/** One source of events for one answer; several may share the answer. */
export function readerOf(
  stream: EventStream,
  { chunks, idOf, fromIndex = 0 }: Mapping,
  abort: { signal: AbortSignal; carrier: TraceCarrier; fail(error: ServeError): void },
): Reader {
  const take = (event: Event) => {
    const chunk = chunks.take(event);
    // Also of an event that has no chunk: the first one tells the resume token.
    const id = idOf?.(event);
    if (Number(event.index) < fromIndex) return true;
    const { kind } = event;
    const failure = kind.case === "finished" ? failureOf(kind.value) : undefined;
    if (failure !== undefined) abort.fail(failure);
    if (abort.signal.aborted || chunk === undefined) return true;
    return stream.send(chunk, id);
  };
  const { signal, carrier } = abort;
  return { take, drained: () => stream.drained(), signal, carrier };
}

/** Answers with the events that `run` gives its readers; settles at the answer's end. @throws before the first event */
export async function answerStream(
  front: Front,
  reply: FastifyReply,
  { signal, carrier = {} }: Omit<Call, "requestId">,
  run: (readerFor: (mapping: Mapping) => Reader) => Promise<void>,
): Promise<FastifyReply> {
  const failed = new AbortController();
  const stream = new EventStream(reply, signal);
  const abort = {
    signal: eitherOf(signal, failed.signal),
    carrier,
    fail: (error: ServeError) => failed.abort(error),
  };
  try {
    await run((mapping) => readerOf(stream, mapping, abort));
    stream.finish();
  } catch (error) {
    failed.abort(error);
    if (!stream.begun) throw error;
    stream.fail(refused(front, error));
  }
  return reply;
}
