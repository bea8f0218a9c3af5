/** A gRPC call: who makes it, until when, and how it is answered. */
import type { GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import type { sendUnaryData, ServerUnaryCall } from "@grpc/grpc-js";
import { ServeError } from "@tessera/proto";
import type { Caller } from "../access/caller.js";
import { refused, type Front } from "../stream/front.js";
import type { TraceCarrier } from "../trace/trace.js";

export type MethodsOf<S> = S extends { method: infer M extends GenServiceMethods } ? M : never;

/** What unary and streaming calls have in common. */
type Call = Pick<
  ServerUnaryCall<unknown, unknown>,
  "on" | "metadata" | "getDeadline" | "cancelled"
>;

/** The client counts its deadline from the sending: its cancel comes so much before the deadline here. */
const EARLY_MS = 100;

export interface CallContext {
  caller: Caller;
  /** Aborts with ABORTED when the client leaves, DEADLINE when its time is up. */
  signal: AbortSignal;
  carrier: TraceCarrier;
}

/** @throws ServeError UNAUTHENTICATED */
export function callerOf({ access }: Front, { metadata }: Call): Caller {
  return access.authenticate(metadata.get("authorization")[0]?.toString());
}

/** What W3C's trace context says in the call's metadata. */
export function carrierOf({ metadata }: Call): TraceCarrier {
  const names = ["traceparent", "tracestate"];
  return Object.fromEntries(names.map((name) => [name, metadata.get(name)[0]?.toString()]));
}

export function abortOf(call: Call): AbortController {
  const abort = new AbortController();
  call.on("cancelled", () => {
    const late = Date.now() >= Number(call.getDeadline()) - EARLY_MS;
    abort.abort(
      late
        ? new ServeError("DEADLINE", "the call's deadline has passed")
        : new ServeError("ABORTED", "cancelled by the client"),
    );
  });
  return abort;
}

export function unary<I, O>(
  front: Front,
  work: (request: I, context: CallContext) => Promise<O> | O,
) {
  return (call: ServerUnaryCall<I, O>, callback: sendUnaryData<O>) => {
    const { signal } = abortOf(call);
    Promise.resolve()
      .then(() => {
        const context = { caller: callerOf(front, call), signal, carrier: carrierOf(call) };
        return work(call.request, context);
      })
      .then(
        (response) => callback(null, response),
        (error: unknown) => callback(refused(front, error).toStatus()),
      );
  };
}
