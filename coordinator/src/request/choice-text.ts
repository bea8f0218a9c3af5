/** Tokens of one choice → text pieces: whole characters only, stop texts found across token borders. */
import type { Tokenizer } from "./tokenizer.js";
import { ToolText } from "./tool-text.js";
import type { ChoiceText, FinishCause, PreparedRequest, SampledToken, TextPiece } from "./types.js";

/** Bytes at the end that may be the beginning of a character: 0…3. */
export function pendingBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte < 0x80) return 0;
    if (byte >= 0xc2) {
      const length = byte >= 0xf0 ? (byte <= 0xf4 ? 4 : 0) : byte >= 0xe0 ? 3 : 2;
      if (length <= back) return 0;
      // A truncated sequence that can no longer become a character is replaced at once.
      const text = new TextDecoder().decode(bytes.subarray(bytes.length - back));
      return text === "\ufffd" ? back : 0;
    }
  }
  return 0;
}

/** Characters at the end of `text` that may be the beginning of one of `stops`. */
function heldBack(text: string, stops: string[]): number {
  let most = 0;
  for (const stop of stops)
    for (let length = Math.min(stop.length - 1, text.length); length > most; length--)
      if (stop.startsWith(text.slice(text.length - length))) most = length;
  return most;
}

type Settings = Pick<
  PreparedRequest,
  "stopTokenIds" | "stopTexts" | "includeStopText" | "skipSpecialTokens" | "minTokens" | "maxTokens"
>;

class ChoiceWriter implements ChoiceText {
  private bytes: Uint8Array = new Uint8Array(0);
  private held = "";
  private tokens: SampledToken[] = [];
  tokenCount = 0;

  constructor(
    private readonly settings: Settings,
    private readonly tokenizer: Tokenizer,
  ) {}

  push(token: SampledToken): TextPiece {
    this.tokenCount++;
    this.tokens.push(token);
    const { settings } = this;
    const may = this.tokenCount > settings.minTokens;
    if (may && settings.stopTokenIds.includes(token.tokenId))
      return this.end({ reason: "stop", stopTokenId: token.tokenId });
    this.held += this.decode(token.tokenId);
    const stop = this.findStop();
    if (may && stop !== undefined) return this.cut(stop);
    if (this.tokenCount >= settings.maxTokens) return this.end({ reason: "length" });
    const keep = heldBack(this.held, settings.stopTexts);
    return this.release(this.held.length - keep, undefined);
  }

  end(cause: FinishCause): TextPiece {
    this.held += new TextDecoder().decode(this.bytes);
    this.bytes = new Uint8Array(0);
    return this.release(this.held.length, cause);
  }

  private decode(id: number): string {
    if (this.settings.skipSpecialTokens && this.tokenizer.isSpecial(id)) return "";
    const all = Buffer.concat([this.bytes, this.tokenizer.tokenBytes(id)]);
    const whole = all.length - pendingBytes(all);
    this.bytes = all.subarray(whole);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(all.subarray(0, whole));
  }

  /** The stop that is complete first, so that the cut of the text into tokens does not matter; then the longest. */
  private findStop(): { at: number; text: string } | undefined {
    let best: { at: number; end: number; text: string } | undefined;
    for (const text of this.settings.stopTexts) {
      const at = this.held.indexOf(text);
      if (at < 0) continue;
      const end = at + text.length;
      if (best === undefined || end < best.end || (end === best.end && at < best.at))
        best = { at, end, text };
    }
    return best;
  }

  private cut(stop: { at: number; text: string }): TextPiece {
    const end = stop.at + (this.settings.includeStopText ? stop.text.length : 0);
    this.held = this.held.slice(0, end);
    this.bytes = new Uint8Array(0);
    return this.release(end, { reason: "stop", stopText: stop.text });
  }

  private release(count: number, finish: FinishCause | undefined): TextPiece {
    const text = this.held.slice(0, count);
    this.held = this.held.slice(count);
    const tokens = this.tokens;
    this.tokens = [];
    return { text, tokens, finish };
  }
}

/** The prompt's text before the first piece's; tokens and logprobs are the answer's own. */
class EchoText implements ChoiceText {
  constructor(
    private readonly inner: ChoiceText,
    private prompt: string,
  ) {}
  get tokenCount(): number {
    return this.inner.tokenCount;
  }
  push(token: SampledToken): TextPiece {
    return this.behind(this.inner.push(token));
  }
  end(cause: FinishCause): TextPiece {
    return this.behind(this.inner.end(cause));
  }
  private behind(piece: TextPiece): TextPiece {
    const text = this.prompt + piece.text;
    this.prompt = "";
    return { ...piece, text };
  }
}

type Echoed = Pick<PreparedRequest, "promptIds" | "imageRows" | "skipSpecialTokens">;

/** The prompt as its tokens say it, places of image rows left out. */
function promptText({ promptIds, imageRows, skipSpecialTokens }: Echoed, tokenizer: Tokenizer) {
  const ofImages = new Set<number>();
  for (const { position, count } of imageRows)
    for (let i = 0; i < count; i++) ofImages.add(position + i);
  const shown = promptIds.filter(
    (id, i) => !ofImages.has(i) && !(skipSpecialTokens && tokenizer.isSpecial(id)),
  );
  return Buffer.concat(shown.map((id) => tokenizer.tokenBytes(id))).toString("utf8");
}

export type ChoiceSettings = Settings & Echoed & Pick<PreparedRequest, "echo" | "tools">;

export function createChoiceText(settings: ChoiceSettings, tokenizer: Tokenizer): ChoiceText {
  const { tools, echo } = settings;
  const own = new ChoiceWriter(settings, tokenizer);
  const text = tools === undefined ? own : new ToolText(own, tools);
  return echo ? new EchoText(text, promptText(settings, tokenizer)) : text;
}
