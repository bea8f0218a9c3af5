/** The public library for what `Bpe` does, and its split pattern: what both must agree with. */
import { Tokenizer } from "@huggingface/tokenizers";
import { readTokenizerParts } from "./tokenizer-files.js";

const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
/** Qwen2's, in JavaScript's terms. */
export const QWEN2_PATTERN =
  "(?:'[sS\\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" +
  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" +
  `| ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*|[${SPACE}]*[\\r\\n]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`;

/** The library's own declarations import without extensions and do not resolve here. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
}
const LibraryClass = Tokenizer as unknown as new (tokenizer: object, config: object) => Library;

/** Plain text → ids. */
export async function libraryOf(dir: string): Promise<(text: string) => number[]> {
  const { vocab, merges } = await readTokenizerParts(dir);
  const split = { type: "Split", pattern: { Regex: QWEN2_PATTERN }, behavior: "Isolated" };
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false };
  const library = new LibraryClass(
    {
      version: "1.0",
      added_tokens: [],
      normalizer: { type: "NFC" },
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { ...split, invert: false },
          { ...bytes, use_regex: false },
        ],
      },
      post_processor: null,
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", vocab, merges, fuse_unk: false, byte_fallback: false },
    },
    {},
  );
  return (text) =>
    text === "" ? [] : library.encode(text.toWellFormed(), { add_special_tokens: false }).ids;
}
