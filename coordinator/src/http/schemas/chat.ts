/** /v1/chat/completions in /openapi.json. */
import { events, finishReason, GENERATION, head, promptLogprobs, usage } from "./generation.js";
import {
  answer,
  body,
  errors,
  flag,
  ids,
  list,
  number,
  oneOf,
  orNull,
  text,
  whole,
  type Schema,
} from "./shared.js";

const imageUrl = body(
  {
    url: { type: "string", description: "a data URL in base64 of a PNG, JPEG or WebP" },
    detail: oneOf("auto", "low", "high"),
    max_tiles: { type: "integer", minimum: 1, maximum: 12 },
  },
  ["url"],
);
const part: Schema = {
  anyOf: [
    body({ type: oneOf("text"), text }, ["type", "text"]),
    body({ type: oneOf("image_url"), image_url: imageUrl }, ["type", "image_url"]),
  ],
};
const message: Schema = {
  type: "object",
  required: ["role"],
  properties: {
    role: oneOf("system", "developer", "user", "assistant", "tool"),
    content: orNull({ anyOf: [text, list(part)] }),
    tool_calls: orNull(list({ type: "object" })),
    tool_call_id: orNull(text),
  },
};
const tool = {
  type: "object",
  required: ["type", "function"],
  properties: { type: oneOf("function"), function: { type: "object" } },
};

const request = body(
  {
    ...GENERATION,
    messages: list(message),
    max_completion_tokens: orNull(whole),
    logprobs: orNull(flag),
    top_logprobs: orNull({ type: "integer", minimum: 0, maximum: 20 }),
    tools: orNull(list(tool)),
    tool_choice: orNull({
      anyOf: [oneOf("none", "auto", "required"), { type: "object" }],
    }),
    parallel_tool_calls: orNull(flag),
    modalities: orNull(list(oneOf("text"))),
    add_generation_prompt: orNull(flag),
    continue_final_message: orNull(flag),
  },
  ["messages"],
);

const topLogprob = { token: text, bytes: list(whole), logprob: number };
const logprobs = orNull(
  answer({
    content: list(answer({ ...topLogprob, top_logprobs: list(answer(topLogprob)) })),
    refusal: { type: "null" },
  }),
);

const call = answer({
  id: text,
  type: oneOf("function"),
  function: answer({ name: text, arguments: text }),
});

export const chatAnswer = answer(
  {
    ...head,
    object: oneOf("chat.completion"),
    choices: list(
      answer(
        {
          index: whole,
          message: answer(
            { role: oneOf("assistant"), content: orNull(text), refusal: { type: "null" } },
            { tool_calls: list(call) },
          ),
          finish_reason: finishReason,
          logprobs,
        },
        { token_ids: ids },
      ),
    ),
    usage,
  },
  { prompt_token_ids: ids, prompt_logprobs: promptLogprobs },
);

const callDelta = answer(
  { index: whole, function: answer({ arguments: text }, { name: text }) },
  { id: text, type: oneOf("function") },
);

export const chatChunk = answer(
  {
    ...head,
    object: oneOf("chat.completion.chunk"),
    choices: list(
      answer(
        {
          index: whole,
          delta: answer(
            {},
            { role: oneOf("assistant"), content: text, tool_calls: list(callDelta) },
          ),
          logprobs,
          finish_reason: finishReason,
        },
        { token_ids: ids },
      ),
    ),
  },
  { usage: orNull(usage), prompt_token_ids: ids, prompt_logprobs: promptLogprobs },
);

export const chatSchema = {
  summary: "An answer to a conversation",
  body: request,
  response: {
    200: {
      description: "The answer, whole or in events",
      content: { "application/json": { schema: chatAnswer }, ...events(chatChunk) },
    },
    ...errors,
  },
};
