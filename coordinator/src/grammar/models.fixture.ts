/** Real vocabularies for tests: the small model's, and Qwen2's of 151,936 ids. */
import { fileURLToPath } from "node:url";
import { GrammarEngine, vocabularyOf, type GrammarLimits } from "./index.js";
import { loadTokenizer, type Tokenizer } from "../request/tokenizer.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

export interface TestModel {
  tokenizer: Tokenizer;
  selectableIds: number;
  stopIds: number[];
}

export async function smallModel(): Promise<TestModel> {
  return model("models/nvlm-d-tiny", undefined);
}

export async function largeModel(): Promise<TestModel> {
  return model("test/fixtures/qwen2-tokenizer", 151_936);
}

async function model(path: string, padded: number | undefined): Promise<TestModel> {
  const tokenizer = await loadTokenizer(root(path));
  const stopIds = [tokenizer.specialId("<|im_end|>")];
  return { tokenizer, selectableIds: padded ?? tokenizer.size, stopIds };
}

export function engineOf(
  { tokenizer, selectableIds, stopIds }: TestModel,
  limits: Partial<GrammarLimits> = {},
): GrammarEngine {
  const vocabulary = vocabularyOf(tokenizer);
  return GrammarEngine.open({ vocabulary, selectableIds, stopTokenIds: stopIds, limits });
}

export const FIELD: { tenant: string; field: string; signal: AbortSignal } = {
  tenant: "ann",
  field: "response_format",
  signal: new AbortController().signal,
};
