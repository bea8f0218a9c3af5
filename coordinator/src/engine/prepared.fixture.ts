/** A request as the request part hands it over, for tests of the loop. */
import type { PreparedRequest, SamplingParameters } from "../request/types.js";

export const GREEDY: SamplingParameters = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 1n,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  allowedTokenIds: [],
  badWords: [],
};

/** One greedy token of a prompt of three. */
export function preparedOf(change: Partial<PreparedRequest> = {}): PreparedRequest {
  return {
    requestId: "r",
    tenant: "default",
    promptIds: [1, 2, 3],
    imageRows: [],
    streams: [],
    sights: [],
    tiles: [],
    imageTokenCount: 0,
    tileCount: 0,
    choiceCount: 1,
    maxTokens: 1,
    minTokens: 0,
    priority: 0,
    sampling: GREEDY,
    stopTokenIds: [],
    stopTexts: [],
    includeStopText: false,
    skipSpecialTokens: true,
    returnTokenIds: true,
    topLogprobs: undefined,
    promptLogprobs: undefined,
    constraint: undefined,
    constraintField: "",
    tools: undefined,
    cacheSalt: "",
    echo: false,
    ...change,
  };
}
