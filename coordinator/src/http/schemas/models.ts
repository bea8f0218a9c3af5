/** /v1/models in /openapi.json. */
import { answer, body, errors, json, list, oneOf, text, whole } from "./shared.js";

const model = answer({
  id: text,
  object: oneOf("model"),
  created: whole,
  owned_by: text,
  max_model_len: whole,
});

export const modelsSchema = {
  summary: "The models that are served",
  response: {
    200: json("One model", answer({ object: oneOf("list"), data: list(model) })),
    ...errors,
  },
};

export const modelSchema = {
  summary: "One of them",
  params: body({ id: text }, ["id"]),
  response: { 200: json("The model", model), ...errors },
};
