/** A tokenizer's files: tokenizer.json, or vocab.json and merges.txt. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ServeError } from "@tessera/proto";

export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

export interface TokenizerParts {
  vocab: Record<string, number>;
  merges: unknown[];
  added: AddedToken[];
}

async function readIfThere(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(() => undefined);
}

function parse(text: string, path: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new ServeError("BAD_MODEL", `${path}: no JSON`, { cause });
  }
}

function addedOf(config: Record<string, unknown>): AddedToken[] {
  const decoder = (config["added_tokens_decoder"] ?? {}) as Record<string, Partial<AddedToken>>;
  return Object.entries(decoder).map(([id, token]) => ({
    id: Number(id),
    content: String(token.content),
    special: token.special === true,
  }));
}

/** Qwen2's split pattern as its tokenizer.json writes it; `bpe.ts` has the same in JavaScript's terms. */
const STORED_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" +
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** What this tokenizer does whatever the file says: NFC, Qwen2's pattern, bytes. Another file would get wrong ids. */
function checkStored(json: Record<string, unknown>, path: string): void {
  const split = { type: "Split", pattern: { Regex: STORED_PATTERN }, behavior: "Isolated" };
  const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
  const wanted: Record<string, unknown> = {
    normalizer: { type: "NFC" },
    pre_tokenizer: { type: "Sequence", pretokenizers: [split, bytes] },
  };
  for (const [key, must] of Object.entries(wanted))
    if (!matches(json[key], must))
      throw new ServeError(
        "BAD_MODEL",
        `${path}: ${key} is ${JSON.stringify(json[key])}, must be Qwen2's ${JSON.stringify(must)}`,
      );
}

/** Whether `value` has all that `must` has; more keys are let be. */
function matches(value: unknown, must: unknown): boolean {
  if (typeof must !== "object" || must === null) return value === must;
  if (typeof value !== "object" || value === null) return false;
  if (Array.isArray(must) && (!Array.isArray(value) || value.length !== must.length)) return false;
  return Object.entries(must).every(([key, part]) =>
    matches((value as Record<string, unknown>)[key], part),
  );
}

/** @throws ServeError BAD_MODEL when the files are missing or damaged. */
export async function readTokenizerParts(dir: string): Promise<TokenizerParts> {
  const whole = await readIfThere(join(dir, "tokenizer.json"));
  if (whole !== undefined) {
    const json = parse(whole, join(dir, "tokenizer.json"));
    checkStored(json, join(dir, "tokenizer.json"));
    const model = json["model"] as
      { vocab?: Record<string, number>; merges?: unknown[] } | undefined;
    if (model?.vocab === undefined || model.merges === undefined)
      throw new ServeError(
        "BAD_MODEL",
        `${dir}/tokenizer.json: model.vocab or model.merges is missing`,
      );
    return {
      vocab: model.vocab,
      merges: model.merges,
      added: (json["added_tokens"] ?? []) as AddedToken[],
    };
  }
  const vocab = await readIfThere(join(dir, "vocab.json"));
  const merges = await readIfThere(join(dir, "merges.txt"));
  const config = await readIfThere(join(dir, "tokenizer_config.json"));
  if (vocab === undefined || merges === undefined)
    throw new ServeError(
      "BAD_MODEL",
      `${dir}: no tokenizer.json, and no vocab.json with merges.txt`,
    );
  return {
    vocab: parse(vocab, join(dir, "vocab.json")) as Record<string, number>,
    // The first line may name the version; every other line is a merge, `#` or not.
    merges: merges
      .split("\n")
      .filter((line, i) => line !== "" && !(i === 0 && line.startsWith("#version"))),
    added: config === undefined ? [] : addedOf(parse(config, join(dir, "tokenizer_config.json"))),
  };
}
