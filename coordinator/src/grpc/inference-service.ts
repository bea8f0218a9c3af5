/** tessera.v1.Inference. */
import { once } from "node:events";
import { create } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { ServeError, type ServiceHandlers } from "@tessera/proto";
import {
  AbortResponseSchema,
  CountTokensResponseSchema,
  type Event,
  type Inference,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Caller } from "../access/caller.js";
import { collecting, Collector } from "../stream/collector.js";
import { refused, type Front } from "../stream/front.js";
import type { Reader } from "../stream/streams.js";
import { abortOf, callerOf, carrierOf, unary, type MethodsOf } from "./call.js";

/** Answers a call with the events that `run` gives its reader. */
function stream<I, O>(
  front: Front,
  call: ServerWritableStream<I, O>,
  from: {
    run: (caller: Caller, reader: Reader) => Promise<void>;
    wrap: (event: Event) => O;
  },
): void {
  const { signal } = abortOf(call);
  const carrier = carrierOf(call);
  // A cancelled call takes no more, and does not drain.
  const take = (event: Event) => call.cancelled || call.write(from.wrap(event));
  const drained = () =>
    once(call, "drain", { signal }).then(
      () => undefined,
      () => undefined,
    );
  Promise.resolve()
    .then(() => from.run(callerOf(front, call), { take, drained, signal, carrier }))
    .then(
      () => call.end(),
      (error: unknown) => call.emit("error", refused(front, error).toStatus()),
    );
}

export function inferenceService(front: Front): ServiceHandlers<MethodsOf<typeof Inference>> {
  const { serving, streams } = front;
  return {
    generate: (call) =>
      stream(front, call, {
        run: (caller, reader) => streams.generate(call.request, caller, reader),
        wrap: (event) => ({ $typeName: "tessera.v1.GenerateResponse" as const, event }),
      }),
    generateOnce: unary(front, async ({ request }, { caller, signal, carrier }) => {
      if (request === undefined) throw ServeError.field("request", "is missing");
      const collector = new Collector();
      await streams.generate(request, caller, { ...collecting(collector, signal), carrier });
      return collector.response;
    }),
    resume: (call) =>
      stream(front, call, {
        run: (caller, reader) => streams.resume(call.request, caller, reader),
        wrap: (event) => ({ $typeName: "tessera.v1.ResumeResponse" as const, event }),
      }),
    countTokens: unary(front, async ({ request }, { caller, signal }) => {
      if (request === undefined) throw ServeError.field("request", "is missing");
      const prepared = await serving.requests.count(request, caller, signal);
      return create(CountTokensResponseSchema, {
        promptTokens: prepared.promptIds.length,
        imageTokens: prepared.imageTokenCount,
        tiles: prepared.tileCount,
        tokenIds: prepared.returnTokenIds ? prepared.promptIds : [],
      });
    }),
    abort: unary(front, ({ requestId }, { caller }) => {
      serving.requests.abort(requestId, caller);
      return create(AbortResponseSchema);
    }),
  };
}
