/** A bare text → token ids. */
import { ServeError } from "@tessera/proto";
import type { Serving } from "../engine/serving.js";

/** Of the longest token of Qwen2's vocabulary: 128 spaces. */
const MAX_TOKEN_BYTES = 128;

/** Text of special tokens is plain text. @throws ServeError CONTEXT_TOO_LONG before the text is looked at */
export function encodeText({ context }: Serving, text: string, field: string): number[] {
  const limit = context.maxModelLen * MAX_TOKEN_BYTES;
  if (Buffer.byteLength(text) > limit)
    throw ServeError.field(
      field,
      `has more than ${limit} bytes, the context has ${context.maxModelLen} tokens`,
      "CONTEXT_TOO_LONG",
    );
  return context.tokenizer.encode(text, { special: false });
}
