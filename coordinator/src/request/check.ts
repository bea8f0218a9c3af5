/** GenerateRequest → a checked request; every violation is reported at once, with field, limit and value. */
import { ServeError } from "@tessera/proto";
import type { GenerateRequest } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import {
  Check,
  checkEntries,
  checkIds,
  checkLength,
  quote,
  type CheckContext,
} from "./check-context.js";
import { checkPrompt, type CheckedImage, type CheckedTurns } from "./check-messages.js";
import { checkSampling } from "./check-sampling.js";
import { checkTools, type CheckedTools } from "./check-tools.js";
import type { PromptTool } from "./tool-prompt.js";
import type { PreparedRequest } from "./types.js";

/** What the message says of the answer goes on as it is. */
type Settings = Pick<
  PreparedRequest,
  | "choiceCount"
  | "minTokens"
  | "priority"
  | "sampling"
  | "stopTokenIds"
  | "stopTexts"
  | "includeStopText"
  | "skipSpecialTokens"
  | "returnTokenIds"
  | "topLogprobs"
  | "promptLogprobs"
  | "constraint"
  | "constraintField"
  | "tools"
  | "cacheSalt"
  | "echo"
>;

export interface CheckedRequest extends Settings {
  requestId: string | undefined;
  /** Turns, or ready token ids. */
  prompt: CheckedTurns | { tokenIds: number[] };
  /** Shown in the prompt. */
  shownTools: PromptTool[];
  images: CheckedImage[];
  maxTokens: number | undefined;
}

export const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

function checkStop(check: Check, request: GenerateRequest, context: CheckContext) {
  const { limits } = context;
  const texts = request.stop?.texts ?? [];
  const ids = request.stop?.tokenIds ?? [];
  checkEntries(check, "stop.texts", texts.length, limits.maxStopTexts);
  texts.forEach((text, i) =>
    checkLength(check, `stop.texts[${i}]`, text, limits.maxStopTextLength),
  );
  checkEntries(check, "stop.token_ids", ids.length, limits.maxStopTokenIds);
  checkIds(check, "stop.token_ids", ids, context);
  const eos = request.stop?.ignoreEos === true ? [] : context.stopTokenIds;
  return { stopTexts: [...texts], stopTokenIds: [...new Set([...eos, ...ids])] };
}

function checkCounts(check: Check, request: GenerateRequest, context: CheckContext) {
  const choiceCount = request.n ?? 1;
  check.range("n", choiceCount, 1, context.limits.maxChoices);
  if (request.maxTokens !== undefined)
    check.range("max_tokens", request.maxTokens, 1, context.maxModelLen);
  const minTokens = request.minTokens ?? 0;
  check.range("min_tokens", minTokens, 0, request.maxTokens ?? context.maxModelLen);
  if (request.topLogprobs !== undefined)
    check.range("top_logprobs", request.topLogprobs, 0, context.limits.maxTopLogprobs);
  if (request.promptLogprobs !== undefined)
    check.range("prompt_logprobs", request.promptLogprobs, 0, context.limits.maxPromptLogprobs);
  const { maxTokens, topLogprobs, promptLogprobs } = request;
  return { choiceCount, maxTokens, minTokens, topLogprobs, promptLogprobs };
}

/** Names and identities; they do not change the answer. */
function checkLabels(check: Check, request: GenerateRequest, context: CheckContext): string {
  const { limits } = context;
  const { requestId, cacheSalt, metadata } = request;
  if (requestId !== undefined && !REQUEST_ID.test(requestId))
    check.fail("request_id", `is ${quote(requestId)}, must be 1…64 of A-Z a-z 0-9 . _ -`);
  if (cacheSalt !== undefined)
    checkLength(check, "cache_salt", cacheSalt, limits.maxCacheSaltLength);
  const entries = Object.entries(metadata);
  if (checkEntries(check, "metadata", entries.length, limits.maxMetadata))
    for (const [key, value] of entries) {
      if (key.length > limits.maxMetadataKeyLength)
        check.fail(
          "metadata",
          `has the key ${quote(key)} of ${key.length} characters, limit ${limits.maxMetadataKeyLength}`,
        );
      if (value.length > limits.maxMetadataValueLength)
        check.fail(
          `metadata[${quote(key)}]`,
          `has ${value.length} characters, limit ${limits.maxMetadataValueLength}`,
        );
    }
  return cacheSalt ?? "";
}

/** Cheap: nothing is decoded. @throws ServeError */
export function checkRequest(request: GenerateRequest, context: CheckContext): CheckedRequest {
  if (request.model !== "" && request.model !== context.servedName)
    throw ServeError.field(
      "model",
      `is ${JSON.stringify(request.model)}, served is ${JSON.stringify(context.servedName)}`,
      "MODEL_NOT_FOUND",
    );
  const check = new Check();
  const cacheSalt = checkLabels(check, request, context);
  const { prompt, images } = checkPrompt(check, request, context);
  const { shown, ...tools }: CheckedTools = checkTools(check, request, context);
  const checked: CheckedRequest = {
    requestId: request.requestId,
    prompt,
    images,
    shownTools: shown,
    ...tools,
    ...checkCounts(check, request, context),
    priority: request.priority ?? 0,
    sampling: checkSampling(check, request, context),
    ...checkStop(check, request, context),
    includeStopText: request.includeStopText ?? false,
    skipSpecialTokens: request.skipSpecialTokens ?? true,
    returnTokenIds: request.returnTokenIds ?? false,
    cacheSalt,
    echo: request.echo ?? false,
  };
  check.finish();
  return checked;
}
