/** What every check of a request's fields shares: limits, what is served, and the list of violations. */
import { ServeError, type FieldViolation } from "@tessera/proto";
import { IMAGE_LIMITS, type ImageLimits } from "./image-decode.js";
import type { Tokenizer } from "./tokenizer.js";

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
  maxPromptLogprobs: number;
  /** Of a schema, a pattern, a grammar or a structural tag, in UTF-8. */
  maxConstraintBytes: number;
  maxConstraintChoices: number;
  maxConstraintChoiceLength: number;
  maxTools: number;
  /** Of all tools as the prompt has them, in UTF-8. */
  maxToolBytes: number;
  /** Objects and lists inside one another. */
  maxToolDepth: number;
  /** Of one message. */
  maxToolCalls: number;
  maxToolCallIdLength: number;
  maxCacheSaltLength: number;
  maxMetadata: number;
  maxMetadataKeyLength: number;
  maxMetadataValueLength: number;
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
  maxPromptLogprobs: 20,
  maxConstraintBytes: 64 * 1024,
  maxConstraintChoices: 1024,
  maxConstraintChoiceLength: 256,
  maxTools: 128,
  maxToolBytes: 64 * 1024,
  maxToolDepth: 32,
  maxToolCalls: 128,
  maxToolCallIdLength: 256,
  maxCacheSaltLength: 256,
  maxMetadata: 16,
  maxMetadataKeyLength: 64,
  maxMetadataValueLength: 512,
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

/** Collects violations; image faults keep their own code when nothing else is wrong. */
export class Check {
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

export function checkIds(check: Check, field: string, ids: number[], context: CheckContext): void {
  const bad = ids.find((id) => id >= context.selectableIds);
  if (bad !== undefined)
    check.fail(field, `have ${bad}, the vocabulary ends at ${context.selectableIds - 1}`);
}

/** False when there are too many: they are not looked at then. */
export function checkEntries(check: Check, field: string, count: number, limit: number): boolean {
  if (count > limit) check.fail(field, `have ${count} entries, limit ${limit}`);
  return count <= limit;
}

export function checkLength(check: Check, field: string, text: string, limit: number): void {
  if (text.length < 1 || text.length > limit)
    check.fail(field, `has ${text.length} characters, must have 1…${limit}`);
}

/** A text in a message: cut, so that a long one does not fill the answer. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80).toWellFormed()}…` : text);
}
