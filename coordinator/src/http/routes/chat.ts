/** POST /v1/chat/completions */
import { create } from "@bufbuild/protobuf";
import type { FastifyInstance } from "fastify";
import {
  ChatChunks,
  toChatCompletion,
  toGenerateRequest,
  usageWanted,
  wantedOf,
} from "@tessera/proto/openai";
import {
  GenerateRequestSchema,
  type GenerateRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Front } from "../../stream/front.js";
import { callOf, nameAnswer, nowSeconds, type Call } from "../call.js";
import { answerStream, generateOnce } from "../generate.js";
import { placedEvents, type PlacedFormat } from "../resume-place.js";
import { chatSchema } from "../schemas/chat.js";

export interface AskedChat {
  message: GenerateRequest;
  format: PlacedFormat;
}

/** `requestId`: where the body names none. @throws ServeError */
export async function readChat(body: unknown, requestId: string): Promise<AskedChat> {
  const input = await toGenerateRequest(body, { stream: true });
  const usage = usageWanted(body as object);
  const message = create(GenerateRequestSchema, {
    ...input,
    requestId: input.requestId ?? requestId,
    // Tokens are counted by their ids.
    returnTokenIds: input.returnTokenIds === true || usage === "always",
  });
  const createdSeconds = nowSeconds();
  const n = message.n ?? 1;
  const format = {
    ...wantedOf(input),
    kind: "chat",
    createdSeconds,
    n,
    usage,
    echo: false,
  } as const;
  return { message, format };
}

/** The whole answer to a body. @throws ServeError */
export async function chatOnce(front: Front, body: unknown, call: Call): Promise<object> {
  return answerChat(front, await readChat(body, call.requestId), call);
}

async function answerChat(
  front: Front,
  { message, format }: AskedChat,
  call: Omit<Call, "requestId">,
): Promise<object> {
  const answer = await generateOnce(front, message, call);
  return toChatCompletion(answer, format, format.createdSeconds);
}

export function chatRoutes(app: FastifyInstance, front: Front): void {
  app.post("/v1/chat/completions", { schema: chatSchema }, async (request, reply) => {
    const call = callOf(request, reply);
    const asked = await readChat(request.body, call.requestId);
    const { message, format } = asked;
    const id = message.requestId ?? call.requestId;
    nameAnswer(reply, id);
    const { stream } = request.body as { stream?: boolean | null };
    if (stream !== true) return answerChat(front, asked, call);
    return answerStream(front, reply, call, (readerFor) => {
      const chunks = new ChatChunks({ id, model: front.serving.context.servedName }, format);
      const reader = readerFor({ chunks, idOf: placedEvents(format) });
      return front.streams.generate(message, call.caller, reader);
    });
  });
}
