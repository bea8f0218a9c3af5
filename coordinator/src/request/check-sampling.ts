/** Sampling → checked parameters with their defaults. */
import type { GenerateRequest, Sampling } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import {
  checkEntries,
  checkIds,
  checkLength,
  type Check,
  type CheckContext,
} from "./check-context.js";
import type { Tokenizer } from "./tokenizer.js";
import type { SamplingParameters } from "./types.js";

function checkBias(check: Check, from: Sampling | undefined, context: CheckContext) {
  const field = "sampling.logit_bias";
  const entries = Object.entries(from?.logitBias ?? {});
  if (!checkEntries(check, field, entries.length, context.limits.maxLogitBias)) return [];
  const logitBias = entries.map(([id, bias]) => ({ tokenId: Number(id), bias }));
  const ids = logitBias.map(({ tokenId }) => tokenId);
  checkIds(check, field, ids, context);
  for (const { tokenId, bias } of logitBias) check.range(`${field}[${tokenId}]`, bias, -100, 100);
  return logitBias;
}

function checkAllowed(check: Check, from: Sampling | undefined, context: CheckContext): number[] {
  const field = "sampling.allowed_token_ids";
  const ids = from?.allowedTokenIds ?? [];
  if (!checkEntries(check, field, ids.length, context.limits.maxAllowedTokenIds)) return [];
  checkIds(check, field, ids, context);
  return [...new Set(ids)];
}

/** As vLLM: a word is forbidden at the start and after a space. */
function checkBadWords(check: Check, from: Sampling | undefined, context: CheckContext) {
  const words = from?.badWords ?? [];
  const { maxBadWords, maxStopTextLength } = context.limits;
  if (!checkEntries(check, "sampling.bad_words", words.length, maxBadWords)) return [];
  return words.flatMap((word, i) => {
    const at = `sampling.bad_words[${i}]`;
    checkLength(check, at, word.trimStart(), maxStopTextLength);
    const lists = badWordIds(word, context.tokenizer);
    checkIds(check, at, lists.flat(), context);
    return lists;
  });
}

export function checkSampling(
  check: Check,
  request: GenerateRequest,
  context: CheckContext,
): SamplingParameters {
  const from = request.sampling;
  const sampling: SamplingParameters = {
    temperature: from?.temperature ?? 0,
    topP: from?.topP ?? 1,
    topK: from?.topK ?? 0,
    minP: from?.minP ?? 0,
    seed: from?.seed ?? context.randomSeed(),
    repetitionPenalty: from?.repetitionPenalty ?? 1,
    presencePenalty: from?.presencePenalty ?? 0,
    frequencyPenalty: from?.frequencyPenalty ?? 0,
    logitBias: checkBias(check, from, context),
    allowedTokenIds: checkAllowed(check, from, context),
    badWords: checkBadWords(check, from, context),
  };
  if (sampling.temperature !== 0 && !(sampling.temperature >= 1e-6 && sampling.temperature <= 100))
    check.fail(
      "sampling.temperature",
      `is ${sampling.temperature}, must be 0 (greedy) or 0.000001…100`,
    );
  if (!(sampling.topP > 0 && sampling.topP <= 1))
    check.fail("sampling.top_p", `is ${sampling.topP}, must be above 0 and at most 1`);
  check.range("sampling.min_p", sampling.minP, 0, 1);
  if (!(sampling.repetitionPenalty > 0 && sampling.repetitionPenalty <= 100))
    check.fail(
      "sampling.repetition_penalty",
      `is ${sampling.repetitionPenalty}, must be above 0 and at most 100`,
    );
  check.range("sampling.presence_penalty", sampling.presencePenalty, -2, 2);
  check.range("sampling.frequency_penalty", sampling.frequencyPenalty, -2, 2);
  return sampling;
}

function badWordIds(word: string, tokenizer: Tokenizer): number[][] {
  const bare = tokenizer.encode(word.trimStart(), { special: false });
  const spaced = tokenizer.encode(` ${word.trimStart()}`, { special: false });
  return [bare, spaced].filter((ids) => ids.length > 0);
}
