/** What scored tokens come to. */

export interface TokenScore {
  tokenId: number;
  /** May be a part of a character. */
  bytes: Uint8Array;
  /** Natural logarithm, of the raw logits. */
  logprob: number;
}

/** Of one line. */
export interface LineSum {
  tokens: number;
  logLikelihood: number;
  /** Of the scored tokens' text. */
  bytes: number;
}

/** In the order of the tokens, in double. */
export function sumTokens(scores: TokenScore[]): LineSum {
  let [logLikelihood, bytes] = [0, 0];
  for (const score of scores) {
    logLikelihood += score.logprob;
    bytes += score.bytes.length;
  }
  return { tokens: scores.length, logLikelihood, bytes };
}

/** Null where nothing is scored. */
export function perplexityOf({ tokens, logLikelihood }: LineSum): number | null {
  return tokens === 0 ? null : Math.exp(-logLikelihood / tokens);
}

export interface ScoreSummary {
  lines: number;
  failed: number;
  tokens: number;
  bytes: number;
  log_likelihood: number;
  /** Nats a token. */
  mean_nll: number | null;
  perplexity: number | null;
  bits_per_byte: number | null;
}

/** Over all tokens of all lines, added in the order of the lines; undefined: a line that failed. */
export function summarise(lines: (LineSum | undefined)[]): ScoreSummary {
  const all = { tokens: 0, logLikelihood: 0, bytes: 0 };
  for (const line of lines) {
    all.tokens += line?.tokens ?? 0;
    all.logLikelihood += line?.logLikelihood ?? 0;
    all.bytes += line?.bytes ?? 0;
  }
  const { tokens, logLikelihood, bytes } = all;
  return {
    lines: lines.length,
    failed: lines.filter((line) => line === undefined).length,
    tokens,
    bytes,
    log_likelihood: logLikelihood,
    mean_nll: tokens === 0 ? null : -logLikelihood / tokens,
    perplexity: perplexityOf(all),
    bits_per_byte: bytes === 0 ? null : -logLikelihood / Math.LN2 / bytes,
  };
}
