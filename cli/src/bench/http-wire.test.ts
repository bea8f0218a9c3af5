import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf, readPiece, retryAfterMs } from "./http-wire.js";
import { TargetFailure } from "./target.js";

function codedAs(code: string, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof TargetFailure, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}

for (const [what, choice, tokenCount, finished] of [
  ["a role alone", { delta: { role: "assistant", content: "" } }, 0, false],
  ["text", { delta: { content: "a" } }, undefined, false],
  ["reasoning", { delta: { reasoning_content: "a" } }, undefined, false],
  ["a tool call", { delta: { tool_calls: [{}] } }, undefined, false],
  ["a completion's text", { text: "a" }, undefined, false],
  ["token ids with text", { delta: { content: "ab" }, token_ids: [1, 2] }, 2, false],
  ["a token of half a character", { delta: { content: "" }, token_ids: [1] }, 1, false],
  ["an end", { delta: {}, finish_reason: "length" }, 0, true],
  ["no ids by name", { delta: { content: "a" }, token_ids: null }, undefined, false],
] as const)
  test(`readPiece: ${what} has ${tokenCount ?? "unknown"} tokens`, () => {
    const piece = readPiece(JSON.stringify({ choices: [choice] }));
    assert.deepEqual([piece.tokenCount, piece.finished], [tokenCount, finished]);
  });

test("readPiece: the last chunk has usage and no choice", () => {
  const usage = {
    prompt_tokens: 5,
    completion_tokens: 3,
    prompt_tokens_details: { cached_tokens: 4 },
  };
  const piece = readPiece(JSON.stringify({ choices: [], usage }));
  assert.deepEqual(piece, {
    tokenCount: 0,
    finished: false,
    usage: { promptTokens: 5, completionTokens: 3, cachedTokens: 4 },
  });
});

test("readPiece: an error in the stream fails the request with its message", () => {
  const data = JSON.stringify({ error: { message: "rank 1 is lost", code: 503 } });
  assert.throws(() => readPiece(data), codedAs("stream_error", /^rank 1 is lost$/));
});

test("readPiece: what is no JSON fails the request", () => {
  assert.throws(() => readPiece("{"), codedAs("bad_event", /no JSON: \{/));
});

const NOW = Date.parse("2026-01-01T00:00:00Z");
for (const [header, expected] of [
  ["2", 2000],
  ["0.25", 250],
  ["Thu, 01 Jan 2026 00:00:03 GMT", 3000],
  ["Wed, 31 Dec 2025 00:00:00 GMT", 0],
  ["soon", undefined],
  ["-1", undefined],
  ["", undefined],
  [undefined, undefined],
] as const)
  test(`retryAfterMs: ${header ?? "no header"} is ${expected ?? "nothing"}`, () => {
    assert.equal(retryAfterMs(header, NOW), expected);
  });

for (const [status, body, message, refused] of [
  [429, '{"error":{"message":"full"}}', /^full$/, true],
  [503, '{"message":"older shape"}', /^older shape$/, false],
  [500, '{"error":"plain"}', /^plain$/, false],
  [502, "<html>bad gateway</html>", /bad gateway/, false],
] as const)
  test(`failureOf: ${status} with ${body.slice(0, 12)}… is told by its message`, () => {
    const failure = failureOf(status, { body, retryAfter: "1", nowMs: NOW });
    assert.match(failure.message, message);
    assert.deepEqual([failure.code, failure.refused], [`http_${status}`, refused]);
    assert.equal(failure.retryAfterMs, 1000);
  });
