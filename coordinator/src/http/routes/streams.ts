/** GET and DELETE /v1/streams/{id}: a stream is taken up again, or ended. */
import type { FastifyInstance } from "fastify";
import { ChatChunks, TextChunks, type Chunks } from "@tessera/proto/openai";
import type { Front } from "../../stream/front.js";
import { callerOf, callOf, nameAnswer } from "../call.js";
import { answerStream } from "../generate.js";
import { placePrefix, readPlace, type Place } from "../resume-place.js";
import { deleteStreamSchema, resumeStreamSchema } from "../schemas/streams.js";

interface OfStream {
  Params: { id: string };
}

function chunksOf({ serving }: Front, id: string, { format }: Place): Chunks {
  const { servedName, tokenizer } = serving.context;
  const name = { id, model: servedName };
  if (format.kind === "chat") return new ChatChunks(name, format);
  return new TextChunks(name, { ...format, tokenBytes: (token) => tokenizer.tokenBytes(token) });
}

export function streamRoutes(app: FastifyInstance, front: Front): void {
  app.get<OfStream>("/v1/streams/:id", { schema: resumeStreamSchema }, async (request, reply) => {
    const { id } = request.params;
    const call = callOf(request, reply);
    const given = request.headers["last-event-id"];
    const place = readPlace(typeof given === "string" ? given : undefined);
    const { resumeToken, format, index } = place;
    nameAnswer(reply, id);
    return answerStream(front, reply, call, (readerFor) => {
      const chunks = chunksOf(front, id, place);
      const prefix = placePrefix(resumeToken, format);
      const reader = readerFor({
        chunks,
        idOf: (event) => `${prefix}:${event.index}`,
        fromIndex: index + 1,
      });
      const fromIndex = BigInt(chunks.remembers ? 0 : index + 1);
      return front.streams.resume({ requestId: id, resumeToken, fromIndex }, call.caller, reader);
    });
  });
  app.delete<OfStream>("/v1/streams/:id", { schema: deleteStreamSchema }, (request, reply) => {
    const { id } = request.params;
    front.serving.requests.abort(id, callerOf(request));
    return reply.send({ id, object: "stream", aborted: true });
  });
}
