/** What is asked: prompts made as they are needed, the same ones for the same seed. */
import type { DatasetLine } from "./dataset.js";
import type { Picture } from "./pictures.js";
import { pick, sourceOf, wholeBetween, type Source } from "./random.js";
import { wordCountFor, wordsText, type TokenFit } from "./words.js";

/** Whole numbers from mean − spread to mean + spread, each as likely. */
export interface Length {
  mean: number;
  spread: number;
}

export interface Prompt {
  index: number;
  text: string;
  pictures: readonly Picture[];
  /** Undefined: of a data set. */
  inputTokens: number | undefined;
  outputTokens: number;
  /** Which of the shared beginnings it has. */
  prefix: number | undefined;
}

export interface WorkloadSettings {
  seed: number;
  inputLength: Length;
  outputLength: Length;
  /** Share of the requests that carry a picture, 0 … 1. */
  imageShare: number;
  /** Share of the requests that begin with one of `prefixCount` texts of `prefixTokens`. */
  prefixShare: number;
  prefixTokens: number;
  prefixCount: number;
}

export interface WorkloadParts {
  fit: TokenFit;
  pictures: readonly Picture[];
  /** In place of made texts, in their order, again from the first after the last. */
  dataset: readonly DatasetLine[] | undefined;
}

function lengthFrom(source: Source, { mean, spread }: Length): number {
  return wholeBetween(source, { least: mean - spread, most: mean + spread });
}

/** `part` names a stretch of the run, as its warm-up: each has prompts of its own. */
export function* promptsOf(
  settings: WorkloadSettings,
  parts: WorkloadParts,
  part: string,
): Generator<Prompt> {
  const source = sourceOf(settings.seed, `prompts/${part}`);
  for (let index = 0; ; index++) {
    // Each property draws from a source of its own request, so that none moves those of the next.
    const own = sourceOf(Math.floor(source() * 2 ** 32), "prompt");
    const outputTokens = lengthFrom(own, settings.outputLength);
    const line = parts.dataset?.[index % parts.dataset.length];
    yield line === undefined
      ? { index, outputTokens, ...madePrompt(settings, parts, own) }
      : { ...fromLine(line, outputTokens), index };
  }
}

function fromLine(line: DatasetLine, outputTokens: number): Omit<Prompt, "index"> {
  return {
    text: line.prompt,
    pictures: line.pictures,
    inputTokens: undefined,
    outputTokens: line.outputTokens ?? outputTokens,
    prefix: undefined,
  };
}

function madePrompt(
  settings: WorkloadSettings,
  { fit, pictures }: WorkloadParts,
  source: Source,
): Omit<Prompt, "index" | "outputTokens"> {
  const ownTokens = lengthFrom(source, settings.inputLength);
  const shared = source() < settings.prefixShare;
  const shown = source() < settings.imageShare;
  const prefix = shared ? Math.floor(source() * settings.prefixCount) : undefined;
  const own = wordsText(source, wordCountFor(ownTokens, fit, "prompt"));
  return {
    text: prefix === undefined ? own : `${prefixText(settings, fit, prefix)} ${own}`,
    pictures: shown ? [pick(source, pictures)] : [],
    inputTokens: ownTokens + (shared ? settings.prefixTokens : 0),
    prefix,
  };
}

/** Of the seed alone, so that every part of a run shares the same ones. */
function prefixText(settings: WorkloadSettings, fit: TokenFit, prefix: number): string {
  const source = sourceOf(settings.seed, `prefix/${prefix}`);
  return wordsText(source, wordCountFor(settings.prefixTokens, fit, "prefix"));
}
