/** /tokenize and /detokenize in /openapi.json. */
import { answer, body, errors, flag, ids, json, list, orNull, text, whole } from "./shared.js";

const common = {
  model: orNull(text),
  add_special_tokens: orNull(flag),
  return_token_strs: orNull(flag),
};

export const tokenizeSchema = {
  summary: "Token ids of a text, or of a conversation as it is prompted",
  body: {
    anyOf: [
      body({ ...common, prompt: text }, ["prompt"]),
      body(
        {
          ...common,
          messages: list({ type: "object" }),
          tools: orNull(list({ type: "object" })),
          add_generation_prompt: orNull(flag),
          continue_final_message: orNull(flag),
        },
        ["messages"],
      ),
    ],
  },
  response: {
    200: json(
      "The ids",
      answer({ count: whole, max_model_len: whole, tokens: ids, token_strs: orNull(list(text)) }),
    ),
    ...errors,
  },
};

export const detokenizeSchema = {
  summary: "The text of token ids",
  body: body({ model: orNull(text), tokens: ids }, ["tokens"]),
  response: { 200: json("The text", answer({ prompt: text })), ...errors },
};
