/** A bare text → token ids. */
import type { Serving } from "../engine/serving.js";
import { checkTextBytes } from "../request/index.js";
import type { Call } from "./call.js";

/**
 * Text of special tokens is plain text.
 * @throws ServeError CONTEXT_TOO_LONG before the text is looked at; what `TextQueue` throws
 */
export async function encodeText(
  { context }: Serving,
  text: string,
  of: { field: string } & Pick<Call, "caller" | "signal">,
): Promise<number[]> {
  const { maxModelLen, texts } = context;
  const { field, caller, signal } = of;
  checkTextBytes(Buffer.byteLength(text), { maxModelLen, field });
  const encoded = await texts.encode([{ text }], { tenant: caller.tenant, field, signal });
  return encoded.flatMap(({ ids }) => Array.from(ids));
}
