/** A model folder or a setting that cannot be served; the message names file, key or tensor, limit and value. */
export class ModelError extends Error {
  readonly code: "BAD_MODEL" | "INVALID_ARGUMENT";
  constructor(code: "BAD_MODEL" | "INVALID_ARGUMENT", message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "ModelError";
    this.code = code;
  }
}
