/** The text of an answer → content and calls of tools, as far as the text is there. It may be cut anywhere. */
import { JsonScanner } from "./json-scanner.js";
import { TOOL_NAME } from "./tool-prompt.js";
import type { ToolCallPiece } from "./types.js";

const BEGIN = "<tool_call>";
const END = "</tool_call>";
/** How a call begins whose arguments can be shown while they come. */
const HEADER = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*\{$/;

/** Characters of it that are looked at; a longer one is read whole. Bounds the work for a hostile text. */
const MAX_HEADER = 1024;

type Mode =
  | { kind: "text" }
  /** Behind a begin tag; `lead`: white space before the tag; `body`: what came, not shown yet. */
  | { kind: "header"; lead: string; body: string; scanner: JsonScanner }
  | { kind: "arguments"; scanner: JsonScanner }
  /** Behind the arguments; `brace`: the call's own is to come; `tag`: how much of the end tag came. */
  | { kind: "tail"; brace: boolean; held: string; tag: number };

interface Call {
  name: string;
  /** JSON text. */
  text: string;
}

/** Characters at the end of `text` that may be the beginning of a tag, and a line's end before it. */
function tagBegun(text: string): number {
  for (let length = Math.min(BEGIN.length, text.length); length > 0; length--) {
    const tail = text.slice(text.length - length);
    if (BEGIN.startsWith(tail) || `\n${BEGIN}`.startsWith(tail)) return length;
  }
  return 0;
}

function isBlank(text: string): boolean {
  return text.trim() === "";
}

function nameOf(json: string): string | undefined {
  try {
    const name: unknown = JSON.parse(json);
    return typeof name === "string" && TOOL_NAME.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

/** A call whose keys stand in another order, or are more. */
function wholeCall(body: string): Call | undefined {
  const { name, arguments: given } = JSON.parse(body) as Record<string, unknown>;
  const object = typeof given === "object" && given !== null && !Array.isArray(given);
  if (typeof name !== "string" || !TOOL_NAME.test(name) || !object) return undefined;
  return { name, text: JSON.stringify(given) };
}

/** What a piece of text adds. */
export interface Parsed {
  content: string;
  toolCalls: ToolCallPiece[];
}

export class CallParser {
  private mode: Mode = { kind: "text" };
  /** In mode text: what may be the beginning of a tag. */
  private rest = "";
  /** A call has ended and only white space came since. */
  private afterCall = false;
  private parsed: Parsed = { content: "", toolCalls: [] };
  /** Calls that were begun, and those that have ended. */
  begun = 0;
  ended = 0;

  /** `last`: nothing is read behind the end of this many calls. */
  constructor(
    private readonly newCallId: () => string,
    private readonly last: number,
  ) {}

  push(text: string): Parsed {
    for (let rest = text; rest !== "" && this.ended < this.last;) rest = this.step(rest);
    return this.take();
  }

  /** The text is at its end: what was held back comes out. */
  end(): Parsed {
    const { mode } = this;
    if (mode.kind === "header") this.refuse(mode);
    if (!this.afterCall || !isBlank(this.rest)) this.parsed.content += this.rest;
    this.rest = "";
    return this.take();
  }

  private take(): Parsed {
    const { parsed } = this;
    this.parsed = { content: "", toolCalls: [] };
    return parsed;
  }

  /** → what is not read yet. */
  private step(text: string): string {
    const { mode } = this;
    if (mode.kind === "text") return this.inText(text);
    const character = text.slice(0, 1);
    const took =
      mode.kind === "header"
        ? this.inHeader(mode, character)
        : mode.kind === "arguments"
          ? this.inArguments(mode, character)
          : this.inTail(mode, character);
    return took === "all" ? text.slice(1) : took + text;
  }

  private inText(more: string): string {
    const text = this.rest + more;
    const at = text.indexOf(BEGIN);
    const before = text.slice(0, at < 0 ? text.length - tagBegun(text) : at);
    const blank = this.afterCall && isBlank(before);
    if (at < 0) {
      this.rest = blank ? text : text.slice(before.length);
      this.show(blank ? "" : before);
      return "";
    }
    const lead = blank ? before : before.endsWith("\n") ? "\n" : "";
    this.show(before.slice(0, before.length - lead.length));
    this.rest = "";
    this.mode = { kind: "header", lead, body: "", scanner: new JsonScanner() };
    return text.slice(at + BEGIN.length);
  }

  private show(content: string): void {
    if (content === "") return;
    this.parsed.content += content;
    this.afterCall = false;
  }

  /** "all": the character was taken; else what goes before it into the text that is read on. */
  private inHeader(mode: Mode & { kind: "header" }, character: string): string {
    const state = mode.scanner.push(character);
    if (state === "bad") return this.refuse(mode);
    mode.body += character;
    const may = character === "{" && mode.body.length <= MAX_HEADER;
    const header = may ? HEADER.exec(mode.body) : null;
    const name = header === null ? undefined : nameOf(header[1] ?? "");
    if (name !== undefined) {
      this.begin({ name, text: "{" });
      const scanner = new JsonScanner();
      scanner.push("{");
      this.mode = { kind: "arguments", scanner };
    } else if (state === "done") {
      const call = wholeCall(mode.body);
      if (call === undefined) return this.refuse(mode, "all");
      this.begin(call);
      this.mode = { kind: "tail", brace: false, held: "", tag: 0 };
    }
    return "all";
  }

  /** No call after all: its text is content. */
  private refuse({ lead, body }: Mode & { kind: "header" }, took = ""): string {
    this.show(lead + BEGIN + body);
    this.mode = { kind: "text" };
    return took;
  }

  private begin({ name, text }: Call): void {
    const index = this.begun++;
    this.parsed.toolCalls.push({ index, id: this.newCallId(), name, arguments: "" });
    this.argue(index, text);
  }

  /** More of a call's arguments, joined to what this text already adds. */
  private argue(index: number, text: string): void {
    const last = this.parsed.toolCalls.at(-1);
    if (last?.index === index) last.arguments += text;
    else this.parsed.toolCalls.push({ index, id: "", name: "", arguments: text });
  }

  private inArguments({ scanner }: Mode & { kind: "arguments" }, character: string): string {
    const state = scanner.push(character);
    if (state === "bad") return this.leave("");
    this.argue(this.begun - 1, character);
    if (state === "done") this.mode = { kind: "tail", brace: true, held: "", tag: 0 };
    return "all";
  }

  private inTail(mode: Mode & { kind: "tail" }, character: string): string {
    if (mode.tag === 0 && isBlank(character)) {
      mode.held += character;
      return "all";
    }
    if (mode.brace) {
      if (character !== "}") return this.leave(mode.held);
      this.mode = { kind: "tail", brace: false, held: "", tag: 0 };
      return "all";
    }
    if (character !== END[mode.tag]) return this.close(mode.held);
    mode.held += character;
    if (++mode.tag === END.length) this.close("");
    return "all";
  }

  /** What comes now is none of the call's, which has no end. */
  private leave(unread: string): string {
    this.ended++;
    this.mode = { kind: "text" };
    return unread;
  }
  /** White space behind a call is no content. */
  private close(unread: string): string {
    this.afterCall = true;
    return this.leave(unread);
  }
}
