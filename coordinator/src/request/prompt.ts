/**
 * Conversation → token ids with recorded places of image rows. Text typed by a user never becomes a special token:
 * special tokens enter as ids, everything between two of them is tokenised as one plain text.
 */
import type { Tokenizer } from "./tokenizer.js";

/** `raw`: the parts of all turns as they are, no system turn, no answer opened. */
export type ChatTemplate = "nvlm" | "qwen" | "raw";

export type TurnPart = { kind: "text"; text: string } | { kind: "image"; image: number };
export interface Turn {
  role: "system" | "user" | "assistant";
  parts: TurnPart[];
}

export interface RenderOptions {
  template: ChatTemplate;
  /** Tiles of each image, the thumbnail counted. */
  patches: number[];
  rowsPerTile: number;
}

export interface RenderedPrompt {
  ids: number[];
  /** First position of each tile's rows, tiles of all images in order. */
  places: number[];
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

/** Collects ids; plain text is joined until a special token comes. */
class Writer {
  readonly ids: number[] = [];
  readonly places: number[] = [];
  text = "";
  private pending = "";
  constructor(private readonly tokenizer: Tokenizer) {}

  plain(text: string): void {
    this.pending += text;
  }
  special(text: string, count = 1): void {
    this.flush();
    const id = this.tokenizer.specialId(text);
    for (let i = 0; i < count; i++) this.ids.push(id);
    this.text += text.repeat(count);
  }
  image(patches: number, rows: number): void {
    this.plain("<Image>");
    for (const tag of tileTags(patches)) {
      this.plain(tag);
      this.flush();
      this.places.push(this.ids.length);
      this.special(PAD, rows);
    }
    this.plain("</Image>");
  }
  flush(): void {
    for (const id of this.tokenizer.encode(this.pending, { special: false })) this.ids.push(id);
    this.text += this.pending;
    this.pending = "";
  }
}

function writeParts(writer: Writer, turn: Turn, options: RenderOptions): void {
  for (const part of turn.parts) {
    if (part.kind === "text") writer.plain(part.text);
    else writer.image(options.patches[part.image] ?? 1, options.rowsPerTile);
  }
}

function writeTurn(writer: Writer, turn: Turn, options: RenderOptions): void {
  writer.special("<|im_start|>");
  writer.plain(`${turn.role}\n`);
  writeParts(writer, turn, options);
  const empty = turn.parts.every((part) => part.kind === "text" && part.text === "");
  // The reference leaves out the end of an empty turn as well, but not the system's.
  if (options.template === "qwen" || !empty || turn.role === "system") writer.special("<|im_end|>");
  if (options.template === "qwen") writer.plain("\n");
}

function writeConversation(
  writer: Writer,
  turns: Turn[],
  options: RenderOptions & { template: keyof typeof DEFAULT_SYSTEM },
): void {
  const text = DEFAULT_SYSTEM[options.template];
  const system: Turn = { role: "system", parts: [{ kind: "text", text }] };
  const all = turns[0]?.role === "system" ? turns : [system, ...turns];
  for (const turn of all) writeTurn(writer, turn, options);
  writer.special("<|im_start|>");
  writer.plain("assistant\n");
}

/** A system turn is put in front when there is none; the assistant's turn is opened. */
export function renderPrompt(
  tokenizer: Tokenizer,
  turns: Turn[],
  options: RenderOptions,
): RenderedPrompt {
  const writer = new Writer(tokenizer);
  if (options.template === "raw") for (const turn of turns) writeParts(writer, turn, options);
  else writeConversation(writer, turns, { ...options, template: options.template });
  writer.flush();
  return { ids: writer.ids, places: writer.places, text: writer.text };
}
