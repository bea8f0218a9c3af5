/** Text that cannot fit the context is refused before it is tokenised, which holds up the steps of all requests. */
import { ServeError } from "@tessera/proto";
import type { Turn } from "./prompt.js";

/** Of the longest token of Qwen2's vocabulary: 128 spaces. */
const MAX_TOKEN_BYTES = 128;

/** @throws ServeError CONTEXT_TOO_LONG */
export function checkTextBytes(
  bytes: number,
  { maxModelLen, field }: { maxModelLen: number; field: string },
): void {
  const limit = maxModelLen * MAX_TOKEN_BYTES;
  if (bytes > limit)
    throw ServeError.field(
      field,
      `has more than ${limit} bytes, the context has ${maxModelLen} tokens`,
      "CONTEXT_TOO_LONG",
    );
}

/** What users wrote in a conversation. */
export function textBytes(turns: readonly Turn[]): number {
  const texts = turns.flatMap(({ parts, calls = [] }) => [
    ...parts.map((part) => (part.kind === "image" ? "" : part.text)),
    ...calls.map((call) => call.arguments),
  ]);
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}
