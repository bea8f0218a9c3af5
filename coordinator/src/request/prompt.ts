/**
 * Conversation → token ids with recorded places of image rows. Text typed by a user never becomes a special token:
 * special tokens enter as ids, everything between two of them is tokenised as one plain text.
 */
import assert from "node:assert/strict";
import type { ImageLayout } from "@tessera/model";
import type { EncodedText, PlainText } from "./bpe.js";
import { spellTurns, type PromptCall, type PromptTool } from "./tool-prompt.js";
import type { Tokenizer } from "./tokenizer.js";

/** `raw`: the parts of all turns as they are, no system turn, no answer opened. */
export type ChatTemplate = "nvlm" | "qwen" | "raw";

export type TurnPart =
  | { kind: "text"; text: string }
  /** The template's own: an added token of the tokenizer where it has one of this text, plain text elsewhere. */
  | { kind: "tag"; text: string }
  | { kind: "image"; image: number };
export interface Turn {
  role: "system" | "user" | "assistant" | "tool";
  parts: TurnPart[];
  /** Of the assistant. */
  calls?: PromptCall[];
}
/** A turn as the prompt has it: its calls and results are parts. */
export interface SpelledTurn {
  role: "system" | "user" | "assistant";
  parts: TurnPart[];
}

export interface RenderOptions {
  template: ChatTemplate;
  /** Tiles of each image, the thumbnail counted. */
  patches: number[];
  rowsPerTile: number;
  layout: ImageLayout;
  tools?: PromptTool[];
  /** The last turn is left open, and no other is opened. */
  open?: boolean;
}

/** Where a tile's tag stands. */
export interface TagPlace {
  image: number;
  /** Of the image's tiles. */
  tile: number;
  /** Behind the tag: of its rows, where they stand in the text. */
  position: number;
}

export interface RenderedPrompt {
  ids: number[];
  /** Of the images in order: position of the first token that reaches into its text. */
  starts: number[];
  tags: TagPlace[];
  text: string;
}

export const PAD = "<|vision_pad|>";
const DEFAULT_SYSTEM = {
  nvlm: "Answer the questions.",
  qwen: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
} as const;

/** Tags of an image of `patches` tiles; a single tile has the thumbnail's. */
export function tileTags(patches: number): string[] {
  const regular = Array.from({ length: patches - 1 }, (_, i) => `<tile_${i + 1}>`);
  return [...regular, "<tile_global_thumbnail>"];
}

/** A prompt before its plain texts are ids. */
export type PromptPiece =
  /** `mark`: where an image's text begins in it. */
  | ({ kind: "plain" } & PlainText)
  | { kind: "special"; id: number; text: string; count: number }
  /** Rows of a tile follow, where they stand in the text. */
  | { kind: "tile"; image: number; tile: number };

/** Collects pieces; plain text is joined until a special token comes. */
class Writer {
  readonly pieces: PromptPiece[] = [];
  private pending = "";
  /** Where in `pending` an image's text begins. */
  private mark: number | undefined;
  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: RenderOptions,
  ) {}

  plain(text: string): void {
    this.pending += text;
  }
  special(text: string, count = 1): void {
    this.flush();
    this.pieces.push({ kind: "special", id: this.tokenizer.specialId(text), text, count });
  }
  tag(text: string): void {
    const ids = this.tokenizer.encode(text, { special: true });
    const [id] = ids;
    if (ids.length === 1 && id !== undefined && this.tokenizer.token(id) === text)
      this.special(text);
    else this.plain(text);
  }
  /** Text is cut behind each tag whether rows follow or not: a tag's ids do not depend on the layout. */
  image(image: number): void {
    const { layout, patches, rowsPerTile } = this.options;
    const all = tileTags(patches[image] ?? 1);
    const first = layout.tags === "all" ? 0 : all.length - 1;
    this.mark = this.pending.length;
    this.plain("<Image>");
    for (const [i, tag] of all.slice(first).entries()) {
      this.plain(tag);
      this.flush();
      this.pieces.push({ kind: "tile", image, tile: first + i });
      if (layout.rowsInText) this.special(PAD, rowsPerTile);
    }
    this.plain("</Image>");
  }
  flush(): void {
    const { mark, pending: text } = this;
    if (text !== "") this.pieces.push({ kind: "plain", text, mark });
    this.pending = "";
    this.mark = undefined;
  }
}

function writeParts(writer: Writer, { parts }: SpelledTurn): void {
  for (const part of parts) {
    if (part.kind === "text") writer.plain(part.text);
    else if (part.kind === "tag") writer.tag(part.text);
    else writer.image(part.image);
  }
}

function writeTurn(writer: Writer, turn: SpelledTurn): void {
  writer.special("<|im_start|>");
  writer.plain(`${turn.role}\n`);
  writeParts(writer, turn);
}

function endTurn(writer: Writer, turn: SpelledTurn, options: RenderOptions): void {
  const empty = turn.parts.every((part) => part.kind === "text" && part.text === "");
  // The reference leaves out the end of an empty turn as well, but not the system's.
  if (options.template === "qwen" || !empty || turn.role === "system") writer.special("<|im_end|>");
  if (options.template === "qwen") writer.plain("\n");
}

function writeConversation(writer: Writer, turns: SpelledTurn[], options: RenderOptions): void {
  for (const [i, turn] of turns.entries()) {
    writeTurn(writer, turn);
    if (options.open === true && i === turns.length - 1) return;
    endTurn(writer, turn, options);
  }
  writer.special("<|im_start|>");
  writer.plain("assistant\n");
}

/** A system turn is put in front when there is none; the assistant's turn is opened. */
export function layOutPrompt(
  tokenizer: Tokenizer,
  turns: Turn[],
  options: RenderOptions,
): PromptPiece[] {
  const { template, tools = [] } = options;
  const writer = new Writer(tokenizer, options);
  const system = template === "raw" ? undefined : DEFAULT_SYSTEM[template];
  const spelled = spellTurns(turns, tools, system);
  if (template === "raw") for (const turn of spelled) writeParts(writer, turn);
  else writeConversation(writer, spelled, options);
  writer.flush();
  return writer.pieces;
}

export function plainTexts(pieces: PromptPiece[]): PlainText[] {
  return pieces.flatMap((piece) =>
    piece.kind === "plain" ? [{ text: piece.text, mark: piece.mark }] : [],
  );
}

/** Of the prompt with these ids of its plain texts. */
export function promptTokenCount(pieces: PromptPiece[], encoded: EncodedText[]): number {
  const specials = pieces.map((piece) => (piece.kind === "special" ? piece.count : 0));
  const texts = encoded.map(({ ids }) => ids.length);
  return [...specials, ...texts].reduce((sum, count) => sum + count, 0);
}

/** `encoded`: the plain texts, in order. */
export function joinPrompt(pieces: PromptPiece[], encoded: EncodedText[]): RenderedPrompt {
  const prompt: RenderedPrompt = { ids: [], starts: [], tags: [], text: "" };
  const { ids, starts, tags } = prompt;
  const texts = encoded.values();
  for (const piece of pieces) {
    if (piece.kind === "tile") {
      tags.push({ image: piece.image, tile: piece.tile, position: ids.length });
    } else if (piece.kind === "special") {
      for (let i = 0; i < piece.count; i++) ids.push(piece.id);
      prompt.text += piece.text.repeat(piece.count);
    } else {
      const { value } = texts.next();
      assert(value !== undefined, "a plain text has no ids");
      if (piece.mark !== undefined) starts.push(ids.length + value.before);
      for (const id of value.ids) ids.push(id);
      prompt.text += piece.text;
    }
  }
  return prompt;
}

/** All at once, on this thread. */
export function renderPrompt(
  tokenizer: Tokenizer,
  turns: Turn[],
  options: RenderOptions,
): RenderedPrompt {
  const pieces = layOutPrompt(tokenizer, turns, options);
  const texts = plainTexts(pieces).map((plain) => tokenizer.bpe.encodeMarked(plain));
  return joinPrompt(pieces, texts);
}
