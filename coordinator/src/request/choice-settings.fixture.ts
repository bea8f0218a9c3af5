/** What a choice's text needs of a request: nothing stops it, nothing is looked for. For tests. */
import type { ChoiceSettings } from "./choice-text.js";

export const PLAIN: ChoiceSettings = {
  stopTokenIds: [],
  stopTexts: [],
  includeStopText: false,
  skipSpecialTokens: true,
  minTokens: 0,
  maxTokens: 1e9,
  promptIds: [],
  imageRows: [],
  echo: false,
  tools: undefined,
};
