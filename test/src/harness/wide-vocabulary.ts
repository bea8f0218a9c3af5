/**
 * The bundled NVLM-D with rows of zeros behind its embeddings and head: lanes of the vocabulary are so wide that the
 * first one has all ids that can be chosen, more than a lane sends at first.
 */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./paths.js";

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const WIDENED = ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight"];

/** Writes the model folder `out`, of `vocabulary` rows. */
export async function writeWideVocabulary(out: string, vocabulary: number): Promise<void> {
  const base = root("models/nvlm-d-tiny");
  await cp(base, out, { recursive: true });
  const config = JSON.parse(await readFile(join(base, "config.json"), "utf8")) as {
    llm_config: Record<string, unknown>;
  };
  config.llm_config["vocab_size"] = vocabulary;
  await writeFile(join(out, "config.json"), JSON.stringify(config));
  const bytes = await readFile(join(base, "model.safetensors"));
  const start = 8 + Number(bytes.readBigUInt64LE());
  const stored = JSON.parse(bytes.toString("utf8", 8, start)) as Record<string, Entry>;
  const header: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, entry] of Object.entries(stored)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: at } = entry;
    const [rows = 0, ...rest] = shape;
    const part = bytes.subarray(start + at[0], start + at[1]);
    const wide = WIDENED.includes(name);
    const more = wide ? (part.length / rows) * (vocabulary - rows) : 0;
    parts.push(part, new Uint8Array(more));
    header[name] = {
      dtype,
      shape: wide ? [vocabulary, ...rest] : shape,
      data_offsets: [offset, (offset += part.length + more)],
    };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(join(out, "model.safetensors"), Buffer.concat([length, text, ...parts]));
}
