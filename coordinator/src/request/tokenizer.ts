/** Text ↔ token ids, with `@huggingface/tokenizers`; from tokenizer.json, or vocab.json and merges.txt. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { ServeError } from "@tessera/proto";

/** White space of the split pattern is Unicode White_Space, not JavaScript's `\s`. */
const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const QWEN2_PATTERN =
  "(?:'[sS\\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" +
  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" +
  `| ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*|[${SPACE}]*[\\r\\n]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`;

export interface Tokenizer {
  /** Special-token text is plain text unless `special`. Lone surrogates become U+FFFD. */
  encode(text: string, options: { special: boolean }): number[];
  /** Bytes of a token; empty for ids without text. */
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  /** The id of an added token's text. @throws ServeError BAD_MODEL when there is none. */
  specialId(text: string): number;
  token(id: number): string | undefined;
  /** Ids below this one can be chosen. */
  readonly size: number;
}

interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

interface Parts {
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

async function readParts(dir: string): Promise<Parts> {
  const whole = await readIfThere(join(dir, "tokenizer.json"));
  if (whole !== undefined) {
    const json = parse(whole, join(dir, "tokenizer.json"));
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

/** Byte-level BPE's letters: printable bytes stand for themselves, the others for U+0100 and up. */
function byteOfLetter(): Map<string, number> {
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    map.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return map;
}

/** What is used of the library; its own declarations import without extensions and do not resolve here. */
interface Bpe {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
}
const BpeLibrary = Library as unknown as new (tokenizer: object, config: object) => Bpe;

function build(parts: Parts): Bpe {
  return new BpeLibrary(
    {
      version: "1.0",
      added_tokens: [],
      normalizer: { type: "NFC" },
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { type: "Split", pattern: { Regex: QWEN2_PATTERN }, behavior: "Isolated", invert: false },
          { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
        ],
      },
      post_processor: null,
      decoder: { type: "ByteLevel" },
      model: {
        type: "BPE",
        vocab: parts.vocab,
        merges: parts.merges,
        fuse_unk: false,
        byte_fallback: false,
      },
    },
    {},
  );
}

class BpeTokenizer implements Tokenizer {
  /** Texts of the vocabulary by id, in letters; those of added tokens as they are. */
  private readonly names: string[] = [];
  private readonly letters = byteOfLetter();
  private readonly added: Map<string, AddedToken>;
  private readonly addedIds: Set<number>;
  private readonly special: Set<number>;
  private readonly splitter: RegExp | undefined;
  private readonly bpe: Bpe;
  readonly size: number;

  constructor(parts: Parts) {
    this.bpe = build(parts);
    for (const [token, id] of Object.entries(parts.vocab)) this.names[id] = token;
    for (const { id, content } of parts.added) this.names[id] = content;
    this.addedIds = new Set(parts.added.map(({ id }) => id));
    this.added = new Map(parts.added.map((token) => [token.content, token]));
    this.special = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
    const texts = [...this.added.keys()].sort((a, b) => b.length - a.length);
    const escaped = texts.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.splitter = texts.length === 0 ? undefined : new RegExp(`(${escaped.join("|")})`, "g");
    this.size = this.names.length;
  }

  encode(text: string, { special }: { special: boolean }): number[] {
    if (!special || this.splitter === undefined) return this.plain(text);
    return text.split(this.splitter).flatMap((piece) => {
      const token = this.added.get(piece);
      return token === undefined ? this.plain(piece) : [token.id];
    });
  }

  private plain(text: string): number[] {
    if (text === "") return [];
    return this.bpe.encode(text.toWellFormed(), { add_special_tokens: false }).ids;
  }

  tokenBytes(id: number): Uint8Array {
    const name = this.names[id] ?? "";
    if (this.addedIds.has(id)) return Buffer.from(name, "utf8");
    return Uint8Array.from(name, (letter) => this.letters.get(letter) ?? 0x3f);
  }
  isSpecial(id: number): boolean {
    return this.special.has(id);
  }
  token(id: number): string | undefined {
    return this.names[id];
  }
  specialId(text: string): number {
    const token = this.added.get(text);
    if (token === undefined) throw new ServeError("BAD_MODEL", `tokenizer: no token ${text}`);
    return token.id;
  }
}

/** @throws ServeError BAD_MODEL when the files are missing or damaged. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  return new BpeTokenizer(await readParts(dir));
}
