/** /v1/batches in /openapi.json. */
import { page, pageQuery } from "./files.js";
import { answer, body, errors, json, list, oneOf, orNull, text, whole } from "./shared.js";

const time = orNull(whole);
const metadata = orNull({ type: "object", additionalProperties: text });
const endpoint = oneOf("/v1/chat/completions", "/v1/completions");

const fault = answer({ code: text, message: text, param: orNull(text), line: time });

const batch = answer({
  id: text,
  object: oneOf("batch"),
  endpoint,
  errors: orNull(answer({ object: oneOf("list"), data: list(fault) })),
  input_file_id: text,
  completion_window: oneOf("24h"),
  status: oneOf(
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
  ),
  output_file_id: orNull(text),
  error_file_id: orNull(text),
  created_at: whole,
  in_progress_at: time,
  expires_at: time,
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: answer({ total: whole, completed: whole, failed: whole }),
  metadata,
});

const params = body({ id: text }, ["id"]);

export const createBatchSchema = {
  summary: "Answers the lines of a file",
  body: body({ input_file_id: text, endpoint, completion_window: oneOf("24h"), metadata }, [
    "input_file_id",
    "endpoint",
    "completion_window",
  ]),
  response: { 200: json("The batch", batch), ...errors },
};

export const batchesSchema = {
  summary: "The tenant's batches, newest first",
  querystring: body(pageQuery),
  response: { 200: json("A page of them", page(batch)), ...errors },
};

export const batchSchema = {
  summary: "One of them",
  params,
  response: { 200: json("The batch", batch), ...errors },
};

export const cancelBatchSchema = {
  summary: "Ends it; what is answered is kept",
  params,
  response: { 200: json("The batch", batch), ...errors },
};
