/** POST /tokenize, POST /detokenize, in vLLM's shapes. */
import { create } from "@bufbuild/protobuf";
import type { FastifyInstance } from "fastify";
import { ServeError } from "@tessera/proto";
import { toGenerateRequest } from "@tessera/proto/openai";
import { GenerateRequestSchema } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Front } from "../../stream/front.js";
import { callOf, type Call } from "../call.js";
import { encodeText } from "../prompt-text.js";
import { readDetokenize, readTokenize } from "../token-bodies.js";
import { detokenizeSchema, tokenizeSchema } from "../schemas/tokens.js";

function checkModel({ serving }: Front, model: string | undefined): void {
  const { servedName } = serving.context;
  if (model === undefined || model === "" || model === servedName) return;
  throw ServeError.field(
    "model",
    `is ${JSON.stringify(model)}, served is ${JSON.stringify(servedName)}`,
    "MODEL_NOT_FOUND",
  );
}

/** Of a text as /v1/completions takes it, or of a conversation as /v1/chat/completions does. */
async function tokenize(front: Front, body: unknown, call: Omit<Call, "requestId">) {
  const { serving } = front;
  const asked = readTokenize(body);
  if ("prompt" in asked) {
    checkModel(front, asked.model);
    return { asked, tokens: await encodeText(serving, asked.prompt, { ...call, field: "prompt" }) };
  }
  const input = await toGenerateRequest(asked.chat);
  const message = create(GenerateRequestSchema, { ...input, returnTokenIds: true });
  const { promptIds } = await serving.requests.count(message, call.caller, call.signal);
  return { asked, tokens: promptIds };
}

function detokenize(front: Front, body: unknown): string {
  const { tokenizer, selectableIds } = front.serving.context;
  const { model, tokens } = readDetokenize(body);
  checkModel(front, model);
  const beyond = tokens.find((id) => id >= selectableIds);
  if (beyond !== undefined)
    throw ServeError.field("tokens", `have ${beyond}, the vocabulary ends at ${selectableIds - 1}`);
  return Buffer.concat(tokens.map((id) => tokenizer.tokenBytes(id))).toString("utf8");
}

export function tokenRoutes(app: FastifyInstance, front: Front): void {
  const { context } = front.serving;
  app.post("/tokenize", { schema: tokenizeSchema }, async (request, reply) => {
    const call = callOf(request, reply);
    const { asked, tokens } = await tokenize(front, request.body, call);
    const strings = () => tokens.map((id) => context.tokenizer.token(id) ?? "");
    return {
      count: tokens.length,
      max_model_len: context.maxModelLen,
      tokens,
      token_strs: asked.strings ? strings() : null,
    };
  });
  app.post("/detokenize", { schema: detokenizeSchema }, (request, reply) =>
    reply.send({ prompt: detokenize(front, request.body) }),
  );
}
