/** /v1/streams/{id} in /openapi.json. */
import { chatChunk } from "./chat.js";
import { completionChunk } from "./completions.js";
import { events } from "./generation.js";
import { answer, body, errors, flag, json, oneOf, text } from "./shared.js";

const params = body({ id: text }, ["id"]);

export const resumeStreamSchema = {
  summary: "What is left of a stream that was asked for with resume",
  params,
  headers: {
    type: "object",
    required: ["last-event-id"],
    properties: { "last-event-id": { ...text, description: "of the last event that came" } },
  },
  response: {
    200: {
      description: "The remaining chunks",
      content: events({ anyOf: [chatChunk, completionChunk] }),
    },
    ...errors,
  },
};

export const deleteStreamSchema = {
  summary: "Ends a running request",
  params,
  response: {
    200: json("It is told to end", answer({ id: text, object: oneOf("stream"), aborted: flag })),
    ...errors,
  },
};
