/** A bare text → token ids. */
import type { Serving } from "../engine/serving.js";
import { checkTextBytes } from "../request/index.js";

/** Text of special tokens is plain text. @throws ServeError CONTEXT_TOO_LONG before the text is looked at */
export function encodeText({ context }: Serving, text: string, field: string): number[] {
  const { maxModelLen, tokenizer } = context;
  checkTextBytes(Buffer.byteLength(text), { maxModelLen, field });
  return tokenizer.encode(text, { special: false });
}
