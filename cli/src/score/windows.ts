/** A text longer than the context, in pieces that overlap. */
import assert from "node:assert/strict";

/** Tokens [start, end) are computed together; those from `first` on are scored. */
export interface Window {
  start: number;
  end: number;
  first: number;
}

/**
 * As Hugging Face's guide to perplexity: windows begin `stride` tokens apart, each scores what no earlier one has.
 * Every token but the text's first is scored once, behind at least `window` − `stride` others where the text has them.
 */
export function strided(
  tokenCount: number,
  { window, stride }: { window: number; stride: number },
): Window[] {
  assert(Number.isSafeInteger(tokenCount) && tokenCount >= 0, `tokenCount ${tokenCount}`);
  assert(stride >= 1 && stride < window, `stride ${stride}, window ${window}`);
  const windows: Window[] = [];
  for (let start = 0, first = 1; first < tokenCount; start += stride) {
    const end = Math.min(start + window, tokenCount);
    windows.push({ start, end, first });
    first = end;
  }
  return windows;
}
