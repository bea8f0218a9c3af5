/** /v1/responses in /openapi.json. */
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

const object = { type: "object" };
const texts = { type: "object", additionalProperties: text };

const request = body(
  {
    model: orNull(text),
    input: { anyOf: [text, list(object)] },
    instructions: orNull(text),
    max_output_tokens: orNull(whole),
    temperature: orNull(number),
    top_p: orNull(number),
    tools: orNull(list(object)),
    tool_choice: orNull({ anyOf: [oneOf("none", "auto", "required"), object] }),
    parallel_tool_calls: orNull(flag),
    text: orNull(object),
    include: orNull(list(oneOf("message.output_text.logprobs", "reasoning.encrypted_content"))),
    top_logprobs: orNull({ type: "integer", minimum: 0, maximum: 20 }),
    metadata: orNull(texts),
    user: orNull(text),
    store: orNull({ const: false }),
    truncation: orNull(oneOf("disabled")),
    service_tier: orNull(oneOf("auto", "default")),
    prompt_cache_key: orNull(text),
    safety_identifier: orNull(text),
    stream: orNull(flag),
    stream_options: orNull(body({ include_obfuscation: flag })),
    seed: orNull({ type: "integer" }),
    top_k: orNull(whole),
    min_p: orNull(number),
    min_tokens: orNull(whole),
    stop: orNull({ anyOf: [text, list(text)] }),
    stop_token_ids: orNull(ids),
    ignore_eos: orNull(flag),
    presence_penalty: orNull(number),
    frequency_penalty: orNull(number),
    repetition_penalty: orNull(number),
    priority: orNull({ type: "integer" }),
    cache_salt: orNull(text),
  },
  ["input"],
);

const topLogprob = { token: text, bytes: list(whole), logprob: number };
const logprobs = list(answer({ ...topLogprob, top_logprobs: list(answer(topLogprob)) }));
const part = answer({
  type: oneOf("output_text"),
  text,
  annotations: list(object),
  logprobs,
});
const status = oneOf("in_progress", "completed", "incomplete");
const item: Schema = {
  anyOf: [
    answer({
      id: text,
      type: oneOf("message"),
      status,
      role: oneOf("assistant"),
      content: list(part),
    }),
    answer({
      id: text,
      type: oneOf("function_call"),
      status,
      call_id: text,
      name: text,
      arguments: text,
    }),
  ],
};

const usage = answer({
  input_tokens: whole,
  input_tokens_details: answer({ cached_tokens: whole }),
  output_tokens: whole,
  output_tokens_details: answer({ reasoning_tokens: whole }),
  total_tokens: whole,
});

const response = answer({
  id: text,
  object: oneOf("response"),
  created_at: whole,
  status: oneOf("in_progress", "completed", "incomplete", "failed"),
  background: { const: false },
  error: orNull(answer({ code: text, message: text })),
  incomplete_details: orNull(answer({ reason: oneOf("max_output_tokens") })),
  instructions: orNull(text),
  max_output_tokens: orNull(whole),
  metadata: texts,
  model: text,
  output: list(item),
  parallel_tool_calls: flag,
  previous_response_id: { type: "null" },
  reasoning: answer({ effort: { type: "null" }, summary: { type: "null" } }),
  service_tier: oneOf("default"),
  store: { const: false },
  temperature: orNull(number),
  text: object,
  tool_choice: { anyOf: [text, object] },
  tools: list(object),
  top_logprobs: whole,
  top_p: orNull(number),
  truncation: oneOf("disabled"),
  usage: orNull(usage),
  user: orNull(text),
});

function event(names: string[], of: Record<string, Schema>): Schema {
  return answer({
    type: oneOf(...names.map((name) => `response.${name}`)),
    sequence_number: whole,
    ...of,
  });
}

const at = { output_index: whole, item_id: text };
const inPart = { ...at, content_index: whole };
const typed: Schema = {
  description: "Server-sent events, each named by its type; the last one has the whole response.",
  anyOf: [
    event(["created", "in_progress", "completed", "incomplete", "failed"], { response }),
    event(["output_item.added", "output_item.done"], { output_index: whole, item }),
    event(["content_part.added", "content_part.done"], { ...inPart, part }),
    event(["output_text.delta"], { ...inPart, delta: text, logprobs }),
    event(["output_text.done"], { ...inPart, text, logprobs }),
    event(["function_call_arguments.delta"], { ...at, delta: text }),
    event(["function_call_arguments.done"], { ...at, name: text, arguments: text }),
  ],
};

export const responseSchema = {
  summary: "An answer in items; it is not stored",
  body: request,
  response: {
    200: {
      description: "The answer, whole or in events",
      content: {
        "application/json": { schema: response },
        "text/event-stream": { schema: typed },
      },
    },
    ...errors,
  },
};

const params = body({ id: text }, ["id"]);

export const storedResponseSchema = {
  summary: "404: nothing is stored",
  params,
  response: errors,
};

export const deleteResponseSchema = {
  summary: "404: nothing is stored",
  params,
  response: errors,
};
