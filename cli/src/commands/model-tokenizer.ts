/** A model folder's tokenizer, where it has one. */
import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Tokenizer } from "@tessera/coordinator/request";

/** Undefined when no file of a tokenizer is there. @throws ServeError BAD_MODEL when they are damaged. */
export async function openTokenizer(dir: string): Promise<Tokenizer | undefined> {
  const files = ["tokenizer.json", "vocab.json", "merges.txt"].map((file) =>
    access(join(dir, file)).then(
      () => true,
      () => false,
    ),
  );
  if (!(await Promise.all(files)).includes(true)) return undefined;
  const { loadTokenizer } = await import("@tessera/coordinator/request");
  return loadTokenizer(dir);
}
