/** /v1/responses: an answer in items; none is stored. */
import { create } from "@bufbuild/protobuf";
import type { FastifyInstance, FastifyReply } from "fastify";
import type { ServeError } from "@tessera/proto";
import {
  notStored,
  ResponseWriter,
  toResponseRequest,
  type AskedResponse,
} from "@tessera/proto/openai";
import {
  GenerateRequestSchema,
  type Event,
  type GenerateRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { refused, type Front } from "../../stream/front.js";
import { callOf, nowSeconds, type Call } from "../call.js";
import { toHttp } from "../errors.js";
import { EventStream } from "../event-stream.js";
import { checkEvent } from "../generate.js";
import {
  deleteResponseSchema,
  responseSchema,
  storedResponseSchema,
} from "../schemas/responses.js";

interface Asked {
  message: GenerateRequest;
  writer: ResponseWriter;
}

function asked(front: Front, { input, echo }: AskedResponse, requestId: string): Asked {
  const name = {
    id: requestId.replace(/^req-/, "").replaceAll(/[^A-Za-z0-9]/g, ""),
    model: front.serving.context.servedName,
    createdSeconds: nowSeconds(),
  };
  return {
    message: create(GenerateRequestSchema, { ...input, requestId }),
    writer: new ResponseWriter(name, echo),
  };
}

async function answerWhole(
  { streams }: Front,
  { message, writer }: Asked,
  { caller, signal, carrier = {} }: Omit<Call, "requestId">,
): Promise<object> {
  const ended: { error?: ServeError | undefined } = {};
  const take = (event: Event) => {
    writer.take(event);
    ended.error ??= checkEvent(event);
    return true;
  };
  const drained = () => Promise.resolve();
  await streams.generate(message, caller, { take, drained, signal, carrier });
  if (ended.error !== undefined) throw ended.error;
  return writer.response;
}

/** The last event says how it ended; there is none of [DONE]. */
async function answerEvents(
  front: Front,
  reply: FastifyReply,
  { message, writer }: Asked,
  call: Omit<Call, "requestId">,
): Promise<FastifyReply> {
  const broken = new AbortController();
  const stream = new EventStream(reply, call.signal);
  const signal = AbortSignal.any([call.signal, broken.signal]);
  const take = (event: Event) => {
    const failure = checkEvent(event);
    if (failure !== undefined) broken.abort(failure);
    if (signal.aborted) return true;
    return writer
      .take(event)
      .map((one) => stream.sendTyped(one))
      .every(Boolean);
  };
  try {
    const reader = { take, drained: () => stream.drained(), signal, carrier: call.carrier ?? {} };
    await front.streams.generate(message, call.caller, reader);
    signal.throwIfAborted();
  } catch (thrown) {
    broken.abort(thrown);
    if (!stream.begun) throw thrown;
    const { body } = toHttp(refused(front, thrown));
    const code = body.error.type === "rate_limit_error" ? "rate_limit_exceeded" : "server_error";
    stream.sendTyped(writer.fail({ code, message: body.error.message }));
  }
  stream.end();
  return reply;
}

interface OfResponse {
  Params: { id: string };
}

export function responseRoutes(app: FastifyInstance, front: Front): void {
  app.post("/v1/responses", { schema: responseSchema }, async (request, reply) => {
    const call = callOf(request, reply);
    const body = await toResponseRequest(request.body);
    const one = asked(front, body, request.id);
    try {
      if (body.stream) return await answerEvents(front, reply, one, call);
      return await answerWhole(front, one, call);
    } catch (error) {
      throw body.renamed(error);
    }
  });
  const path = "/v1/responses/:id";
  app.get<OfResponse>(path, { schema: storedResponseSchema }, ({ params }) => {
    throw notStored(params.id);
  });
  app.delete<OfResponse>(path, { schema: deleteResponseSchema }, ({ params }) => {
    throw notStored(params.id);
  });
}
