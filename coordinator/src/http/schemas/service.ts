/** /health, /version, /openapi.json in /openapi.json. */
import { answer, errors, json, oneOf, open, text } from "./shared.js";

export const healthSchema = {
  ...open,
  summary: "Whether requests are served",
  response: { 200: json("They are", answer({ status: oneOf("ok") })), ...errors },
};

export const versionSchema = {
  ...open,
  summary: "The server's version",
  response: { 200: json("As released", answer({ version: text })), ...errors },
};

export const openapiSchema = {
  ...open,
  summary: "This document",
  response: { 200: json("OpenAPI 3.1", { type: "object" }), ...errors },
};
