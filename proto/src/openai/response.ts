/** An answer → OpenAI's chat completion body. */
import {
  FinishReason,
  type Choice,
  type GenerateOnceResponse,
  type TokenLogprob,
} from "../gen/tessera/v1/inference_pb.js";

const REASONS: Partial<Record<FinishReason, string>> = {
  [FinishReason.STOP]: "stop",
  [FinishReason.LENGTH]: "length",
  [FinishReason.TOOL_CALLS]: "tool_calls",
  [FinishReason.ABORTED]: "abort",
  [FinishReason.ERROR]: "error",
};

function token({ token: bytes, logprob }: { token: Uint8Array; logprob: number }) {
  return { token: Buffer.from(bytes).toString("utf8"), bytes: [...bytes], logprob };
}

function logprobs(list: TokenLogprob[]) {
  return list.map((entry) => ({ ...token(entry), top_logprobs: entry.top.map(token) }));
}

function choice(from: Choice, wanted: { tokenIds: boolean; logprobs: boolean }) {
  return {
    index: from.index,
    message: { role: "assistant", content: from.text },
    finish_reason: REASONS[from.finished?.reason ?? FinishReason.UNSPECIFIED] ?? null,
    logprobs: wanted.logprobs ? { content: logprobs(from.logprobs) } : null,
    ...(wanted.tokenIds ? { token_ids: from.tokenIds } : {}),
  };
}

export function toChatCompletion(
  from: GenerateOnceResponse,
  wanted: { tokenIds: boolean; logprobs: boolean },
  createdSeconds: number,
) {
  const { started, usage } = from;
  const [prompt, completion] = [usage?.promptTokens ?? 0, usage?.completionTokens ?? 0];
  return {
    id: started?.requestId ?? "",
    object: "chat.completion",
    created: createdSeconds,
    model: started?.model ?? "",
    choices: from.choices.map((entry) => choice(entry, wanted)),
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
    },
    ...(wanted.tokenIds ? { prompt_token_ids: started?.promptTokenIds ?? [] } : {}),
  };
}
