/** POST /v1/completions */
import { setImmediate } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import type { FastifyInstance, FastifyReply } from "fastify";
import { ServeError } from "@tessera/proto";
import {
  TextChunks,
  toCompletion,
  toTextCompletion,
  usageWanted,
  UsageOfChunks,
  wantedOf,
  type Completion,
  type TextFormat,
} from "@tessera/proto/openai";
import {
  GenerateRequestSchema,
  type GenerateRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Front } from "../../stream/front.js";
import { callOf, eitherOf, nameAnswer, nowSeconds, partId, type Call } from "../call.js";
import { answerStream, generateOnce } from "../generate.js";
import { encodeText } from "../prompt-text.js";
import { placedEvents, type PlacedFormat } from "../resume-place.js";
import { completionSchema } from "../schemas/completions.js";

export interface AskedCompletion {
  /** Of the answer; of the request as well where there is one. */
  id: string;
  /** One a prompt. */
  messages: GenerateRequest[];
  format: TextFormat & PlacedFormat;
}

function checkResume({ prompts, request }: Completion): void {
  if (request.resume === true && prompts.length > 1)
    throw ServeError.field("resume", `is true beside ${prompts.length} prompts, needs one`);
}

/** @throws ServeError */
export async function readCompletion(
  { serving }: Front,
  body: unknown,
  call: Pick<Call, "requestId" | "caller" | "signal">,
): Promise<AskedCompletion> {
  const asked = await toCompletion(body, { stream: true });
  checkResume(asked);
  const { prompts, request } = asked;
  const usage = usageWanted(body as object);
  const id = request.requestId ?? call.requestId;
  const echoed = request.echo === true && request.topLogprobs !== undefined;
  // Tokens are counted, and an echo's are named, by their ids.
  const returnTokenIds = request.returnTokenIds === true || usage === "always" || echoed;
  const messages: GenerateRequest[] = [];
  for (const [p, prompt] of prompts.entries()) {
    const tokenIds =
      "text" in prompt
        ? await encodeText(serving, prompt.text, { ...call, field: "prompt" })
        : prompt.tokenIds;
    const requestId = prompts.length === 1 ? id : partId(id, p);
    messages.push(
      create(GenerateRequestSchema, { ...request, requestId, tokenIds, returnTokenIds }),
    );
    // Steps go on between two prompts.
    await setImmediate();
  }
  const format = {
    ...wantedOf(request),
    // An echo's are in the legacy shape.
    promptLogprobs: wantedOf(request).promptLogprobs && !echoed,
    kind: "text" as const,
    createdSeconds: nowSeconds(),
    n: request.n ?? 1,
    usage,
    echo: request.echo === true,
    tokenBytes: (token: number) => serving.context.tokenizer.tokenBytes(token),
  };
  return { id, messages, format };
}

/** The whole answer to a body. @throws ServeError */
export async function completionOnce(front: Front, body: unknown, call: Call): Promise<object> {
  return answerCompletion(front, await readCompletion(front, body, call), call);
}

/** One failure ends all prompts of the body. */
async function answerCompletion(
  front: Front,
  { id, messages, format }: AskedCompletion,
  of: Omit<Call, "requestId">,
): Promise<object> {
  const failed = new AbortController();
  const call = { ...of, signal: eitherOf(of.signal, failed.signal) };
  try {
    const answers = await Promise.all(messages.map((one) => generateOnce(front, one, call)));
    return toTextCompletion(id, answers, format);
  } catch (error) {
    failed.abort(error);
    throw error;
  }
}

function streamCompletion(
  front: Front,
  reply: FastifyReply,
  { id, messages, format }: AskedCompletion,
  call: Omit<Call, "requestId">,
): Promise<FastifyReply> {
  const name = { id, model: front.serving.context.servedName };
  const usage = new UsageOfChunks(format.usage, messages.length);
  return answerStream(front, reply, call, async (readerFor) => {
    await Promise.all(
      messages.map((message, p) => {
        const chunks = new TextChunks(name, format, usage, p * format.n);
        const reader = readerFor({ chunks, idOf: placedEvents(format) });
        return front.streams.generate(message, call.caller, reader);
      }),
    );
  });
}

export function completionRoutes(app: FastifyInstance, front: Front): void {
  app.post("/v1/completions", { schema: completionSchema }, async (request, reply) => {
    const call = callOf(request, reply);
    const asked = await readCompletion(front, request.body, call);
    nameAnswer(reply, asked.id);
    const { stream } = request.body as { stream?: boolean | null };
    if (stream === true) return streamCompletion(front, reply, asked, call);
    return answerCompletion(front, asked, call);
  });
}
