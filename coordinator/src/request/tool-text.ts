/** A choice's text → content, and calls of tools that grow as they come. */
import { randomUUID } from "node:crypto";
import { CallParser } from "./call-parser.js";
import type { ChoiceText, FinishCause, SampledToken, TextPiece, ToolUse } from "./types.js";

const ID_LENGTH = 24;

/** Unlike any other, so that a conversation over many requests has no two. */
export function randomCallId(): string {
  return `call_${randomUUID().replaceAll("-", "").slice(0, ID_LENGTH)}`;
}

export class ToolText implements ChoiceText {
  private readonly parser: CallParser;

  constructor(
    private readonly inner: ChoiceText,
    private readonly use: ToolUse,
    newCallId: () => string = randomCallId,
  ) {
    this.parser = new CallParser(newCallId, use.parallel ? Infinity : 1);
  }

  get tokenCount(): number {
    return this.inner.tokenCount;
  }
  push(token: SampledToken): TextPiece {
    return this.parse(this.inner.push(token));
  }
  end(cause: FinishCause): TextPiece {
    return this.parse(this.inner.end(cause));
  }

  private parse({ text, tokens, finish }: TextPiece): TextPiece {
    const { parser, use } = this;
    const { content, toolCalls } = parser.push(text);
    const enough = !use.parallel && parser.ended > 0;
    if (finish === undefined && !enough)
      return { text: content, toolCalls, tokens, finish: undefined };
    const last = parser.end();
    return {
      text: content + last.content,
      toolCalls: [...toolCalls, ...last.toolCalls],
      tokens,
      finish: this.causeOf(finish ?? { reason: "tool_calls" }),
    };
  }

  private causeOf(cause: FinishCause): FinishCause {
    const byItself = cause.reason === "stop" && this.parser.begun > 0;
    return byItself ? { ...cause, reason: "tool_calls" } : cause;
  }
}
