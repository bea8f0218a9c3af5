import assert from "node:assert/strict";
import { test } from "node:test";
import { perplexityOf, summarise, sumTokens } from "./sums.js";

const token = (logprob: number, text = "ab") => ({
  tokenId: 1,
  bytes: new TextEncoder().encode(text),
  logprob,
});

test("sumTokens: log-likelihoods and bytes are added", () => {
  const sum = sumTokens([token(-0.5), token(-1.5, "é")]);
  assert.deepEqual(sum, { tokens: 2, logLikelihood: -2, bytes: 4 });
  assert.equal(perplexityOf(sum), Math.E);
});

test("summarise: each token weighs the same, whatever its line; failed lines are counted and not summed", () => {
  const long = sumTokens([token(-1), token(-1), token(-1)]);
  const short = sumTokens([token(-5)]);
  const { perplexity, bits_per_byte: bits, ...rest } = summarise([long, undefined, short]);
  assert.deepEqual(rest, {
    lines: 3,
    failed: 1,
    tokens: 4,
    bytes: 8,
    log_likelihood: -8,
    mean_nll: 2,
  });
  assert.equal(perplexity, Math.exp(2));
  assert.equal(bits, 1 / Math.LN2);
});

test("summarise: a guess among 256 equal bytes is 8 bits a byte", () => {
  const { bits_per_byte: bits } = summarise([sumTokens([token(-Math.log(256), "x")])]);
  assert.ok(Math.abs((bits ?? 0) - 8) < 1e-12, `${bits}`);
});

test("summarise: where nothing is scored there is no perplexity", () => {
  const summary = summarise([sumTokens([]), undefined]);
  assert.deepEqual(
    [summary.tokens, summary.mean_nll, summary.perplexity, summary.bits_per_byte],
    [0, null, null, null],
  );
});
