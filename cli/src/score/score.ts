/** Log-likelihoods of texts by `prompt_logprobs` of a cluster. */
import { TesseraClient, toGenerateRequest, type GenerateInput } from "@tessera/client";
import type { Tokenizer } from "@tessera/coordinator/request";
import type { Scored } from "./line.js";
import type { TokenScore } from "./sums.js";
import { strided } from "./windows.js";

export interface Scoring {
  client: TesseraClient;
  /** Of texts without a prompt. */
  tokenizer: Tokenizer;
  /** Tokens computed together at most, and how far apart such windows begin. */
  window: number;
  stride: number;
  readFile: (path: string) => Promise<Uint8Array>;
}

export interface LineScore {
  /** In order; a text's first token has none. */
  scores: TokenScore[];
  windows: number;
}

/** The server's own tokens are asked for the bytes; one is made, since no request makes none. */
const ASKED: GenerateInput = { promptLogprobs: 0, maxTokens: 1, returnTokenIds: true };

class ScoreError extends Error {
  constructor(
    readonly code: string,
    field: string,
    what: string,
  ) {
    super(`${field}: ${what}`);
    this.violations = [{ field }];
  }
  readonly violations: { field: string }[];
}

/** → the prompt's ids, and the scores of those from the second on */
async function ask(client: TesseraClient, request: GenerateInput) {
  const { started } = await client.generateOnce({ ...request, ...ASKED });
  const ids = started?.promptTokenIds ?? [];
  const scores = (started?.promptLogprobs ?? []).map(({ tokenId, token, logprob }): TokenScore => ({
    tokenId,
    bytes: token,
    logprob,
  }));
  if (scores.length !== ids.length - 1 || scores.some(({ tokenId }, i) => tokenId !== ids[i + 1]))
    throw new ScoreError(
      "internal",
      "prompt_logprobs",
      `${scores.length} came for ${ids.length} tokens, must be of each from the second on`,
    );
  return { ids, scores };
}

/** The tokenizer here is the server's, or nothing would be right. */
function checkTokens(tokenizer: Tokenizer, scores: TokenScore[]): void {
  const other = scores.find(({ tokenId, bytes }) =>
    Buffer.from(tokenizer.tokenBytes(tokenId)).compare(bytes),
  );
  if (other === undefined) return;
  const text = (bytes: Uint8Array) => JSON.stringify(Buffer.from(bytes).toString("utf8"));
  const here = text(tokenizer.tokenBytes(other.tokenId));
  throw new ScoreError(
    "invalid_request",
    "tokenizer",
    `token ${other.tokenId} is ${here} here and ${text(other.bytes)} at the server`,
  );
}

async function scoreTokens(tokenIds: number[], scoring: Scoring): Promise<LineScore> {
  const windows = strided(tokenIds.length, scoring);
  const scores: TokenScore[] = [];
  for (const { start, end, first } of windows) {
    const part = await ask(scoring.client, { tokenIds: tokenIds.slice(start, end) });
    for (const score of part.scores.slice(first - start - 1)) scores.push(score);
  }
  return { scores, windows: windows.length };
}

/** The answer's tokens behind the prompt and its pictures, in one window. */
async function scoreAnswer(
  { text, prompt, images }: Extract<Scored, { kind: "answer" }>,
  { client, readFile }: Scoring,
): Promise<LineScore> {
  const content = [
    ...images.map((url) => ({ type: "image_url", image_url: { url } })),
    ...(prompt === "" ? [] : [{ type: "text", text: prompt }]),
  ];
  const user = { role: "user", content };
  const asked = await toGenerateRequest({ messages: [user] }, { readFile });
  const messages = [user, { role: "assistant", content: text }];
  const body = { messages, continue_final_message: true };
  const answered = await toGenerateRequest(body, { readFile });
  const before = await client.countTokens({ ...asked, returnTokenIds: true });
  const { ids, scores } = await ask(client, answered);
  const first = before.tokenIds.length;
  if (first === 0 || before.tokenIds.some((id, i) => id !== ids[i]))
    throw new ScoreError(
      "invalid_request",
      "text",
      "its first token joins with the end of the prompt, so it cannot be scored alone",
    );
  return { scores: scores.slice(first - 1), windows: 1 };
}

/** @throws TesseraError, or an error with code and violations, of the line alone */
export async function scoreLine(scored: Scored, scoring: Scoring): Promise<LineScore> {
  if (scored.kind === "answer") return scoreAnswer(scored, scoring);
  if (scored.kind === "tokens") return scoreTokens(scored.tokenIds, scoring);
  const ids = scoring.tokenizer.encode(scored.text, { special: false });
  const result = await scoreTokens(ids, scoring);
  checkTokens(scoring.tokenizer, result.scores);
  return result;
}
