/** A tokenizer's tokens as the grammar engine takes them. */
import type { Tokenizer } from "../request/tokenizer.js";

/** Special tokens and ids without text are empty: no text of an answer is spelled with them. */
export function vocabularyOf(tokenizer: Tokenizer): Uint8Array[] {
  return Array.from({ length: tokenizer.size }, (_, id) =>
    tokenizer.isSpecial(id) ? new Uint8Array() : tokenizer.tokenBytes(id),
  );
}
