/** Schemas that routes share, for /openapi.json alone: bodies are checked where they are read. */

export type Schema = Record<string, unknown>;

export const text = { type: "string" };
export const whole = { type: "integer", minimum: 0 };
export const number = { type: "number" };
export const flag = { type: "boolean" };
export const ids = { type: "array", items: whole };
/** Of a request: null is as if absent. */
export const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: "null" }] });
export const list = (items: Schema): Schema => ({ type: "array", items });
export const oneOf = (...values: (string | null)[]): Schema => ({ enum: values });

/** An object of an answer: all of `required`, of `optional` what there is, nothing else. */
export function answer(required: Record<string, Schema>, optional: Record<string, Schema> = {}) {
  return {
    type: "object",
    required: Object.keys(required),
    properties: { ...required, ...optional },
    additionalProperties: false,
  };
}

/** An object of a request; other fields are refused by name. */
export function body(properties: Record<string, Schema>, required: string[] = []): Schema {
  return { type: "object", required, properties, additionalProperties: false };
}

export const ERROR = {
  $id: "Error",
  ...answer({
    error: answer({ message: text, type: text, param: orNull(text), code: orNull(text) }),
  }),
};

export const SHARED = [ERROR];

export function json(description: string, schema: Schema): Schema {
  return { description, content: { "application/json": { schema } } };
}

const error = { $ref: "Error#" };
export const errors = {
  "4xx": json("The request cannot be served as it is.", error),
  "5xx": json("The server cannot serve it now.", error),
};

/** Asks for no key. */
export const open = { security: [] };
