/** Pieces of text → events with a rising index. */
import { create } from "@bufbuild/protobuf";
import { ErrorCode } from "@tessera/proto/gen/tessera/v1/errors_pb.js";
import { millisToDuration, type ServeErrorCode } from "@tessera/proto";
import {
  DoneSchema,
  FinishedSchema,
  FinishReason,
  StartedSchema,
  TokenLogprobSchema,
  ToolCallSchema,
  type Event,
  type Finished,
  type TokenLogprob,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { RequestEvents, RequestSink, RequestTimings } from "../engine/active.js";
import type { FinishCause, PreparedRequest, SampledToken, Tokenizer } from "../request/index.js";

const REASONS = {
  stop: FinishReason.STOP,
  tool_calls: FinishReason.TOOL_CALLS,
  length: FinishReason.LENGTH,
  aborted: FinishReason.ABORTED,
  error: FinishReason.ERROR,
} as const;

function finished(choice: number, cause: FinishCause): Finished {
  const message = create(FinishedSchema, { choice, reason: REASONS[cause.reason] });
  const byItself = cause.reason === "stop" || cause.reason === "tool_calls";
  if (byItself && cause.stopText !== undefined)
    message.matched = { case: "stopText", value: cause.stopText };
  else if (byItself && cause.stopTokenId !== undefined)
    message.matched = { case: "stopTokenId", value: cause.stopTokenId };
  if (cause.reason === "error") {
    message.errorMessage = cause.message;
    message.errorCode = ErrorCode[cause.code as ServeErrorCode];
  }
  return message;
}

export class EventWriter implements RequestEvents {
  private index = 0n;

  private readonly prepared: PreparedRequest;
  private readonly tokenizer: Tokenizer;

  constructor(
    private readonly of: {
      prepared: PreparedRequest;
      model: string;
      tokenizer: Tokenizer;
      /** Of a stream that can be resumed. */
      resumeToken: string | undefined;
    },
    private readonly write: (event: Event) => void,
  ) {
    this.prepared = of.prepared;
    this.tokenizer = of.tokenizer;
  }

  /** `promptTokens`: from the second on, where their logprobs were asked for. */
  started = (promptTokens: SampledToken[] = []): void => {
    const { prepared, model, resumeToken } = this.of;
    this.emit({
      case: "started",
      value: create(StartedSchema, {
        requestId: prepared.requestId,
        model,
        promptTokens: prepared.promptIds.length,
        imageTokens: prepared.imageTokenCount,
        tiles: prepared.tileCount,
        seed: prepared.sampling.seed,
        promptTokenIds: prepared.returnTokenIds ? prepared.promptIds : [],
        promptLogprobs: promptTokens.map((token) => this.logprob(token)),
        ...(resumeToken === undefined ? {} : { resumeToken }),
      }),
    });
  };

  private emit(kind: Event["kind"]): void {
    // As a literal: `create` costs a third of what an event costs in all.
    this.write({ $typeName: "tessera.v1.Event", index: this.index++, kind });
  }

  private logprob(token: SampledToken): TokenLogprob {
    const { tokenizer } = this;
    return create(TokenLogprobSchema, {
      tokenId: token.tokenId,
      token: tokenizer.tokenBytes(token.tokenId),
      logprob: token.logprob ?? 0,
      top: token.top.map(({ tokenId, logprob }) => ({
        tokenId,
        logprob,
        token: tokenizer.tokenBytes(tokenId),
      })),
    });
  }

  piece: RequestSink["piece"] = (choice, { text, toolCalls: calls = [], tokens, finish }) => {
    const { returnTokenIds, topLogprobs } = this.prepared;
    const tokenIds = returnTokenIds ? tokens.map((token) => token.tokenId) : [];
    const logprobs = topLogprobs === undefined ? [] : tokens.map((token) => this.logprob(token));
    const toolCalls = calls.map((call) => create(ToolCallSchema, call));
    if (text !== "" || tokenIds.length > 0 || logprobs.length > 0 || toolCalls.length > 0)
      this.emit({
        case: "delta",
        value: { $typeName: "tessera.v1.Delta", choice, text, tokenIds, logprobs, toolCalls },
      });
    if (finish !== undefined) this.emit({ case: "finished", value: finished(choice, finish) });
  };

  done = (timings: RequestTimings & { cachedTokens?: number }): void => {
    this.emit({
      case: "done",
      value: create(DoneSchema, {
        usage: {
          promptTokens: this.prepared.promptIds.length,
          completionTokens: timings.completionTokens,
          imageTokens: this.prepared.imageTokenCount,
          tiles: this.prepared.tileCount,
          cachedTokens: timings.cachedTokens ?? 0,
        },
        timings: {
          queue: millisToDuration(timings.queueMs),
          encode: millisToDuration(timings.encodeMs),
          timeToFirstToken: millisToDuration(timings.firstTokenMs),
          total: millisToDuration(timings.totalMs),
        },
      }),
    });
  };

  failed: RequestSink["failed"] = () => undefined;
}
