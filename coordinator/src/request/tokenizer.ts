/** Text ↔ token ids, from a model folder's tokenizer files. */
import { ServeError } from "@tessera/proto";
import { Bpe, bpeTables } from "./bpe.js";
import { BYTE_LETTERS } from "./byte-letters.js";
import { readTokenizerParts, type AddedToken, type TokenizerParts } from "./tokenizer-files.js";

export interface Tokenizer {
  /** Special-token text is plain text unless `special`. Lone surrogates become U+FFFD. */
  encode(text: string, options: { special: boolean }): number[];
  /** Of plain text, with what a thread needs for the same. */
  readonly bpe: Bpe;
  /** Bytes of a token; empty for ids without text. */
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  /** The id of an added token's text. @throws ServeError BAD_MODEL when there is none. */
  specialId(text: string): number;
  token(id: number): string | undefined;
  /** Ids below this one can be chosen. */
  readonly size: number;
}

class BpeTokenizer implements Tokenizer {
  /** Texts of the vocabulary by id, in letters; those of added tokens as they are. */
  private readonly names: string[] = [];
  private readonly byteOf = new Map(BYTE_LETTERS.map((letter, byte) => [letter, byte]));
  private readonly added: Map<string, AddedToken>;
  private readonly addedIds: Set<number>;
  private readonly special: Set<number>;
  private readonly splitter: RegExp | undefined;
  readonly bpe: Bpe;
  readonly size: number;

  constructor(parts: TokenizerParts) {
    for (const [token, id] of Object.entries(parts.vocab)) this.names[id] = token;
    for (const { id, content } of parts.added) this.names[id] = content;
    this.addedIds = new Set(parts.added.map(({ id }) => id));
    this.added = new Map(parts.added.map((token) => [token.content, token]));
    this.special = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
    const texts = [...this.added.keys()].sort((a, b) => b.length - a.length);
    const escaped = texts.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.splitter = texts.length === 0 ? undefined : new RegExp(`(${escaped.join("|")})`, "g");
    this.size = this.names.length;
    const byteCounts = Array.from({ length: this.size }, (_, id) => this.tokenBytes(id).length);
    this.bpe = new Bpe(bpeTables({ ...parts, letters: BYTE_LETTERS, byteCounts }));
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
    return Array.from(this.bpe.encode(text));
  }

  tokenBytes(id: number): Uint8Array {
    const name = this.names[id] ?? "";
    if (this.addedIds.has(id)) return Buffer.from(name, "utf8");
    return Uint8Array.from(name, (letter) => this.byteOf.get(letter) ?? 0x3f);
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
  return new BpeTokenizer(await readTokenizerParts(dir));
}
