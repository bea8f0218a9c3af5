/** An answer → OpenAI's chat completion body. */
import {
  FinishReason,
  type Choice,
  type GenerateOnceResponse,
  type TokenLogprob,
  type ToolCall,
  type Usage,
} from "../gen/tessera/v1/inference_pb.js";
import type { GenerateInput } from "./request.js";

/** What of an answer was asked for. */
export interface Wanted {
  tokenIds: boolean;
  logprobs: boolean;
  promptLogprobs: boolean;
}

export function wantedOf(request: GenerateInput): Wanted {
  return {
    tokenIds: request.returnTokenIds === true,
    logprobs: request.topLogprobs !== undefined,
    promptLogprobs: request.promptLogprobs !== undefined,
  };
}

const REASONS: Partial<Record<FinishReason, string>> = {
  [FinishReason.STOP]: "stop",
  [FinishReason.LENGTH]: "length",
  [FinishReason.TOOL_CALLS]: "tool_calls",
  [FinishReason.ABORTED]: "abort",
  [FinishReason.ERROR]: "error",
};

/** As OpenAI writes it; undefined for a choice that has not ended. */
export function finishReasonOf(reason: FinishReason): string | undefined {
  return REASONS[reason];
}

function decoded(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("utf8");
}

function token({ token: bytes, logprob }: { token: Uint8Array; logprob: number }) {
  return { token: decoded(bytes), bytes: [...bytes], logprob };
}

export function toLogprobs(list: TokenLogprob[]) {
  const content = list.map((entry) => ({ ...token(entry), top_logprobs: entry.top.map(token) }));
  return { content, refusal: null };
}

interface PromptLogprob {
  logprob: number;
  /** From 1; null where the token is none of the best that were asked for. */
  rank: number | null;
  decoded_token: string;
}

/** vLLM's: by token id, the prompt's own first; null for the first token, before which there is nothing. */
export function toPromptLogprobs(list: TokenLogprob[]): (Record<string, PromptLogprob> | null)[] {
  const entries = list.map(({ tokenId, token: bytes, logprob, top }) => {
    const best = top.map((one, i): [string, PromptLogprob] => [
      String(one.tokenId),
      { logprob: one.logprob, rank: i + 1, decoded_token: decoded(one.token) },
    ]);
    const own: PromptLogprob = { logprob, rank: null, decoded_token: decoded(bytes) };
    return Object.fromEntries([[String(tokenId), own], ...best]);
  });
  return [null, ...entries];
}

function toolCall({ id, name, arguments: text }: ToolCall) {
  return { id, type: "function", function: { name, arguments: text } };
}

function messageOf({ text, toolCalls }: Choice) {
  const content = text === "" && toolCalls.length > 0 ? null : text;
  const message = { role: "assistant", content, refusal: null };
  return toolCalls.length === 0 ? message : { ...message, tool_calls: toolCalls.map(toolCall) };
}

function choice(from: Choice, wanted: Wanted) {
  return {
    index: from.index,
    message: messageOf(from),
    finish_reason: finishReasonOf(from.finished?.reason ?? FinishReason.UNSPECIFIED) ?? null,
    logprobs: wanted.logprobs ? toLogprobs(from.logprobs) : null,
    ...(wanted.tokenIds ? { token_ids: from.tokenIds } : {}),
  };
}

export function toUsage(usage: Usage | undefined) {
  const [prompt, completion] = [usage?.promptTokens ?? 0, usage?.completionTokens ?? 0];
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: usage?.cachedTokens ?? 0 },
  };
}

export function toChatCompletion(
  from: GenerateOnceResponse,
  wanted: Wanted,
  createdSeconds: number,
) {
  const { started, usage } = from;
  return {
    id: started?.requestId ?? "",
    object: "chat.completion",
    created: createdSeconds,
    model: started?.model ?? "",
    choices: from.choices.map((entry) => choice(entry, wanted)),
    usage: toUsage(usage),
    ...(wanted.tokenIds ? { prompt_token_ids: started?.promptTokenIds ?? [] } : {}),
    ...(wanted.promptLogprobs
      ? { prompt_logprobs: toPromptLogprobs(started?.promptLogprobs ?? []) }
      : {}),
  };
}
