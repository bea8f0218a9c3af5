/** The golden requests of nvlm-d-tiny through 1, 2, 4 and 8 engines in one process, connected frame by frame. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { KvType } from "@tessera/model";
import { answersOf, assertLikeOracle } from "../harness/golden-runner.js";
import { readGoldens, type Golden } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

const goldens = await readGoldens("nvlm-d-tiny.json");

function answers(size: number, kvType: KvType, chunk: number, requests: Golden[]) {
  return answersOf(requests, root("models/nvlm-d-tiny"), { size, kvType, chunk });
}

const alone = await answers(1, "f32", 512, goldens);

test("one engine: greedy ids are the oracle's, log-probabilities within 2e-3", () => {
  assertLikeOracle(alone, goldens);
});

for (const size of [2, 4, 8])
  test(`${size} engines: the same bits as one`, async () => {
    assert.deepEqual(await answers(size, "f32", 512, goldens), alone);
  });

test("chunked prefill of 7 tokens: the same bits as whole", async () => {
  const few = goldens.slice(0, 4);
  assert.deepEqual(await answers(2, "f32", 7, few), alone.slice(0, 4));
});

test("a bf16 cache: 1 and 4 engines, whole and chunked, the same bits among themselves", async () => {
  const few = goldens.slice(0, 4);
  const whole = await answers(1, "bf16", 512, few);
  assert.deepEqual(await answers(4, "bf16", 512, few), whole);
  assert.deepEqual(await answers(1, "bf16", 33, few), whole);
});
