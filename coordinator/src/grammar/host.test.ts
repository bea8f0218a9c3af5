import assert from "node:assert/strict";
import { test } from "node:test";
import { Host } from "./host.js";
import { GRAMMAR_LIMITS } from "./limits.js";
import { RemoteMatcher } from "./remote-matcher.js";

/** A vocabulary that needs more WebAssembly memory than a thread begins with. */
const TOKENS = 200_000;
const TOKEN_BYTES = 16;

test("host: threads that do not start are given up after some, and none is left running", async () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(TOKENS * TOKEN_BYTES)).fill(0x61);
  const ends = new Uint32Array(new SharedArrayBuffer(4 * TOKENS));
  ends.forEach((_, i) => (ends[i] = (i + 1) * TOKEN_BYTES));
  const limits = { ...GRAMMAR_LIMITS, threadBytes: 1 };
  let faults = 0;
  const host = new Host({ vocabulary: { bytes, ends }, stopTokenIds: [0], limits }, undefined, {
    condemned: () => faults++,
  });
  host.keep(1, { kind: "ebnf", text: 'root ::= "a"', forbidden: [] }, false);
  const matcher = new RemoteMatcher(7, 1, "constraint", host);
  host.add(matcher);
  await matcher.ready;
  assert.match(matcher.failure?.message ?? "", /3 threads failed in a row/);
  assert.equal(faults, 4);
  assert.equal(host.running, false);
  const later = new RemoteMatcher(8, 1, "constraint", host);
  host.add(later);
  await later.ready;
  assert.match(later.failure?.message ?? "", /threads failed in a row/);
  assert.equal(host.running, false);
});
