/** /v1/completions in /openapi.json. */
import { events, finishReason, GENERATION, head, promptLogprobs, usage } from "./generation.js";
import { answer, body, errors, ids, list, number, oneOf, orNull, text, whole } from "./shared.js";

const request = body(
  {
    ...GENERATION,
    prompt: { anyOf: [text, list(text), ids, list(ids)] },
    logprobs: orNull({ type: "integer", minimum: 0, maximum: 20 }),
  },
  ["prompt"],
);

const logprobs = orNull(
  answer({
    tokens: list(text),
    token_logprobs: list(orNull(number)),
    top_logprobs: list(orNull({ type: "object", additionalProperties: number })),
    text_offset: ids,
  }),
);

const choice = { index: whole, text, logprobs, finish_reason: finishReason };

export const completionAnswer = answer({
  ...head,
  object: oneOf("text_completion"),
  choices: list(
    answer(choice, {
      token_ids: ids,
      prompt_token_ids: ids,
      prompt_logprobs: promptLogprobs,
    }),
  ),
  usage,
});

export const completionChunk = answer(
  {
    ...head,
    object: oneOf("text_completion"),
    choices: list(answer(choice, { token_ids: ids })),
  },
  { usage: orNull(usage) },
);

export const completionSchema = {
  summary: "What follows a text",
  body: request,
  response: {
    200: {
      description: "The answer, whole or in events",
      content: { "application/json": { schema: completionAnswer }, ...events(completionChunk) },
    },
    ...errors,
  },
};
