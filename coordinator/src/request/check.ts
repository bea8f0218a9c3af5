/** GenerateRequest → a checked request; every violation is reported at once, with field, limit and value. */
import { MAX_IMAGE_TILES } from "@tessera/model";
import { ServeError, type FieldViolation } from "@tessera/proto";
import {
  ImageDetail,
  Role,
  type GenerateRequest,
  type Image,
  type Sampling,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkImage, IMAGE_LIMITS, type ImageLimits } from "./image-decode.js";
import type { Turn, TurnPart } from "./prompt.js";
import type { Tokenizer } from "./tokenizer.js";
import type { SamplingParameters } from "./types.js";

export interface RequestLimits {
  maxImages: number;
  maxChoices: number;
  maxStopTexts: number;
  maxStopTextLength: number;
  maxStopTokenIds: number;
  maxBadWords: number;
  /** As they are given, before equal ones become one. */
  maxAllowedTokenIds: number;
  maxLogitBias: number;
  maxTopLogprobs: number;
  image: ImageLimits;
}

export const REQUEST_LIMITS: RequestLimits = {
  maxImages: 16,
  maxChoices: 16,
  maxStopTexts: 16,
  maxStopTextLength: 256,
  maxStopTokenIds: 64,
  maxBadWords: 64,
  maxAllowedTokenIds: 8192,
  maxLogitBias: 1024,
  maxTopLogprobs: 20,
  image: IMAGE_LIMITS,
};

export interface CheckContext {
  servedName: string;
  tokenizer: Tokenizer;
  limits: RequestLimits;
  maxModelLen: number;
  /** Ids below are known to the tokenizer and to lm_head. */
  selectableIds: number;
  stopTokenIds: number[];
  defaultMaxTiles: number;
  randomSeed(): bigint;
}

export interface CheckedImage {
  data: Uint8Array;
  field: string;
  maxTiles: number;
}

export interface CheckedRequest {
  requestId: string | undefined;
  /** Turns, or ready token ids. */
  prompt: { turns: Turn[] } | { tokenIds: number[] };
  images: CheckedImage[];
  choiceCount: number;
  maxTokens: number | undefined;
  minTokens: number;
  priority: number;
  sampling: SamplingParameters;
  stopTokenIds: number[];
  stopTexts: string[];
  includeStopText: boolean;
  skipSpecialTokens: boolean;
  returnTokenIds: boolean;
  topLogprobs: number | undefined;
}

export const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;
/** `auto` and `high` cut as the reference does, by the picture's shape. */
const DETAILS = {
  [ImageDetail.UNSPECIFIED]: "auto",
  [ImageDetail.AUTO]: "auto",
  [ImageDetail.LOW]: "low",
  [ImageDetail.HIGH]: "high",
} as const;
const ROLES = {
  [Role.SYSTEM]: "system",
  [Role.USER]: "user",
  [Role.ASSISTANT]: "assistant",
} as const;

/** Collects violations; image faults keep their own code when nothing else is wrong. */
class Check {
  readonly violations: FieldViolation[] = [];
  private imageOnly = true;

  fail(field: string, description: string): void {
    this.violations.push({ field, description });
    this.imageOnly = false;
  }
  range(field: string, value: number, low: number, high: number): void {
    if (!(value >= low && value <= high)) this.fail(field, `is ${value}, must be ${low}…${high}`);
  }
  attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      const serve = ServeError.from(error);
      if (serve.code !== "INVALID_IMAGE") throw error;
      this.violations.push(...serve.violations);
    }
  }
  finish(): void {
    if (this.violations.length === 0) return;
    const text = this.violations.map(({ field, description }) => `${field}: ${description}`);
    throw new ServeError(this.imageOnly ? "INVALID_IMAGE" : "INVALID_ARGUMENT", text.join("; "), {
      violations: this.violations,
    });
  }
}

/** Fields that are declared and not served yet. */
function refuseUnbuilt(request: GenerateRequest): void {
  const unbuilt = [
    ["constraint", request.constraint !== undefined],
    ["tools", request.tools.length > 0],
    ["tool_choice", request.toolChoice !== undefined],
    ["prompt_logprobs", request.promptLogprobs !== undefined],
    ...request.messages.flatMap(
      (message, index) =>
        [
          [`messages[${index}].role`, message.role === Role.TOOL],
          [`messages[${index}].tool_call_id`, message.toolCallId !== undefined],
          [`messages[${index}].tool_calls`, message.toolCalls.length > 0],
        ] as const,
    ),
  ] as const;
  for (const [field, set] of unbuilt)
    if (set) throw ServeError.field(field, "is not served by this version", "NOT_BUILT");
}

function checkImagePart(
  check: Check,
  image: Image,
  field: string,
  context: CheckContext,
): CheckedImage {
  check.attempt(() =>
    checkImage(image.data, {
      field: `${field}.data`,
      mediaType: image.mediaType,
      limits: context.limits.image,
    }),
  );
  const maxTiles = image.options?.maxTiles ?? context.defaultMaxTiles;
  check.range(`${field}.options.max_tiles`, maxTiles, 1, MAX_IMAGE_TILES);
  const detail = image.options?.detail ?? ImageDetail.UNSPECIFIED;
  if (!(detail in DETAILS))
    check.fail(`${field}.options.detail`, `is ${detail}, must be auto, low or high`);
  const low = detail === ImageDetail.LOW;
  if (low && (image.options?.maxTiles ?? 1) > 1)
    check.fail(`${field}.options.max_tiles`, `is ${maxTiles} beside detail low, which has 1`);
  return { data: image.data, field: `${field}.data`, maxTiles: low ? 1 : maxTiles };
}

function checkMessages(check: Check, request: GenerateRequest, context: CheckContext) {
  const images: CheckedImage[] = [];
  const turns = request.messages.map((message, m): Turn => {
    const field = `messages[${m}]`;
    const role = ROLES[message.role as keyof typeof ROLES];
    if (role === undefined)
      check.fail(`${field}.role`, `is ${message.role}, must be system, user or assistant`);
    if (role === "system" && m > 0)
      check.fail(`${field}.role`, "is system, which only the first message may be");
    const parts = message.parts.flatMap((part, p): TurnPart[] => {
      const at = `${field}.parts[${p}]`;
      if (part.content.case === "text") return [{ kind: "text", text: part.content.value }];
      if (part.content.case === undefined) {
        check.fail(at, "is empty");
        return [];
      }
      if (role !== "user") check.fail(`${at}.image`, "is not in a message of role user");
      images.push(checkImagePart(check, part.content.value, `${at}.image`, context));
      return [
        { kind: "image", image: images.length - 1 },
        { kind: "text", text: "\n" },
      ];
    });
    return { role: role ?? "user", parts };
  });
  if (images.length > context.limits.maxImages)
    check.fail("messages", `have ${images.length} images, limit ${context.limits.maxImages}`);
  return { turns, images };
}

function checkPrompt(check: Check, request: GenerateRequest, context: CheckContext) {
  const { messages, tokenIds } = request;
  if (messages.length === 0 && tokenIds.length === 0)
    check.fail("messages", "are empty, and so are token_ids");
  if (messages.length > 0 && tokenIds.length > 0)
    check.fail("token_ids", "are given beside messages");
  checkIds(check, "token_ids", tokenIds, context);
  if (tokenIds.length > 0) return { prompt: { tokenIds: [...tokenIds] }, images: [] };
  const { turns, images } = checkMessages(check, request, context);
  return { prompt: { turns }, images };
}

function checkIds(check: Check, field: string, ids: number[], context: CheckContext): void {
  const bad = ids.find((id) => id >= context.selectableIds);
  if (bad !== undefined)
    check.fail(field, `have ${bad}, the vocabulary ends at ${context.selectableIds - 1}`);
}

/** False when there are too many: they are not looked at then. */
function checkEntries(check: Check, field: string, count: number, limit: number): boolean {
  if (count > limit) check.fail(field, `have ${count} entries, limit ${limit}`);
  return count <= limit;
}

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

function checkSampling(
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

function checkLength(check: Check, field: string, text: string, limit: number): void {
  if (text.length < 1 || text.length > limit)
    check.fail(field, `has ${text.length} characters, must have 1…${limit}`);
}

function badWordIds(word: string, tokenizer: Tokenizer): number[][] {
  const bare = tokenizer.encode(word.trimStart(), { special: false });
  const spaced = tokenizer.encode(` ${word.trimStart()}`, { special: false });
  return [bare, spaced].filter((ids) => ids.length > 0);
}

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
  return { choiceCount, maxTokens: request.maxTokens, minTokens, topLogprobs: request.topLogprobs };
}

/** Cheap: nothing is decoded. @throws ServeError */
export function checkRequest(request: GenerateRequest, context: CheckContext): CheckedRequest {
  refuseUnbuilt(request);
  if (request.model !== "" && request.model !== context.servedName)
    throw ServeError.field(
      "model",
      `is ${JSON.stringify(request.model)}, served is ${JSON.stringify(context.servedName)}`,
      "MODEL_NOT_FOUND",
    );
  const check = new Check();
  if (request.requestId !== undefined && !REQUEST_ID.test(request.requestId))
    check.fail(
      "request_id",
      `is ${JSON.stringify(request.requestId.slice(0, 80))}, must be 1…64 of A-Z a-z 0-9 . _ -`,
    );
  const { prompt, images } = checkPrompt(check, request, context);
  const checked: CheckedRequest = {
    requestId: request.requestId,
    prompt,
    images,
    ...checkCounts(check, request, context),
    priority: request.priority ?? 0,
    sampling: checkSampling(check, request, context),
    ...checkStop(check, request, context),
    includeStopText: request.includeStopText ?? false,
    skipSpecialTokens: request.skipSpecialTokens ?? true,
    returnTokenIds: request.returnTokenIds ?? false,
  };
  check.finish();
  return checked;
}
