/** What chat and completion bodies and answers have in common. */
import {
  flag,
  ids,
  list,
  number,
  oneOf,
  orNull,
  answer,
  text,
  whole,
  type Schema,
} from "./shared.js";

const anything = {};

/** Of a request, in both bodies. */
export const GENERATION: Record<string, Schema> = {
  model: orNull(text),
  max_tokens: orNull(whole),
  min_tokens: orNull(whole),
  n: orNull({ type: "integer", minimum: 1, maximum: 16 }),
  stop: orNull({ anyOf: [text, list(text)] }),
  stop_token_ids: orNull(ids),
  ignore_eos: orNull(flag),
  include_stop_str_in_output: orNull(flag),
  skip_special_tokens: orNull(flag),
  seed: orNull({ type: "integer" }),
  temperature: orNull(number),
  top_p: orNull(number),
  top_k: orNull(whole),
  min_p: orNull(number),
  repetition_penalty: orNull(number),
  presence_penalty: orNull(number),
  frequency_penalty: orNull(number),
  logit_bias: orNull({ type: "object", additionalProperties: number }),
  allowed_token_ids: orNull(ids),
  bad_words: orNull(list(text)),
  prompt_logprobs: orNull(whole),
  return_token_ids: orNull(flag),
  response_format: orNull({ type: "object" }),
  guided_json: anything,
  guided_regex: orNull(text),
  guided_choice: orNull(list(text)),
  guided_grammar: orNull(text),
  structured_outputs: orNull({ type: "object" }),
  echo: orNull(flag),
  priority: orNull({ type: "integer" }),
  cache_salt: orNull(text),
  user: orNull(text),
  metadata: orNull({ type: "object", additionalProperties: text }),
  store: orNull(flag),
  service_tier: orNull(text),
  stream: orNull(flag),
  stream_options: orNull({
    type: "object",
    properties: {
      include_usage: flag,
      include_obfuscation: flag,
      continuous_usage_stats: flag,
    },
    additionalProperties: false,
  }),
  resume: { ...orNull(flag), description: "keep the stream's events for a grace time" },
  request_id: { ...orNull(text), description: "1 to 64 of A-Z a-z 0-9 . _ -" },
};

export const finishReason = oneOf("stop", "length", "tool_calls", "abort", null);

export const usage = answer(
  { prompt_tokens: whole, completion_tokens: whole, total_tokens: whole },
  { prompt_tokens_details: answer({ cached_tokens: whole }) },
);

export const promptLogprobs = list(
  orNull({
    type: "object",
    additionalProperties: answer({
      logprob: number,
      rank: orNull(whole),
      decoded_token: text,
    }),
  }),
);

/** Of an answer or a chunk. */
export const head = { id: text, created: whole, model: text };

/** A stream's events; the last one is `[DONE]`, or an error. */
export function events(chunk: Schema): Schema {
  const description =
    "Server-sent events: each data is one of these, an error, or [DONE] at the end of a whole answer.";
  return { "text/event-stream": { schema: { description, ...chunk } } };
}
