/** /v1/files in /openapi.json. */
import { answer, body, errors, flag, json, list, oneOf, orNull, text, whole } from "./shared.js";

const purpose = oneOf("batch", "batch_output");
const file = answer({
  id: text,
  object: oneOf("file"),
  bytes: whole,
  created_at: whole,
  filename: text,
  purpose,
  status: oneOf("processed"),
});

const params = body({ id: text }, ["id"]);

/** Of every list with pages. */
export const pageQuery = {
  after: { ...text, description: "id of the entry before the page" },
  limit: { type: "integer", minimum: 1 },
  order: oneOf("asc", "desc"),
};

export function page(entry: object) {
  return answer({
    object: oneOf("list"),
    data: list({ ...entry }),
    first_id: orNull(text),
    last_id: orNull(text),
    has_more: flag,
  });
}

export const createFileSchema = {
  summary: "Keeps a file of JSON lines",
  consumes: ["multipart/form-data"],
  body: body({ file: { ...text, format: "binary" }, purpose: oneOf("batch") }, ["file", "purpose"]),
  response: { 200: json("The file", file), ...errors },
};

export const filesSchema = {
  summary: "The tenant's files, newest first",
  querystring: body({ ...pageQuery, purpose }),
  response: { 200: json("A page of them", page(file)), ...errors },
};

export const fileSchema = {
  summary: "One of them",
  params,
  response: { 200: json("The file", file), ...errors },
};

export const fileContentSchema = {
  summary: "Its bytes",
  params,
  response: {
    200: {
      description: "As they were sent",
      content: { "application/octet-stream": { schema: { ...text, format: "binary" } } },
    },
    ...errors,
  },
};

export const deleteFileSchema = {
  summary: "Deletes it",
  params,
  response: {
    200: json("It is gone", answer({ id: text, object: oneOf("file"), deleted: flag })),
    ...errors,
  },
};
