/** The int8 cache through a real cluster of two kinds of CPU; more ways in kv-types.long.test.ts. */
import { test } from "node:test";
import { assertLittleCaches, MIXED } from "../harness/little-cache.js";

test("nvlm-h-tiny, int8, two workers: the same bits with little cache, in steps of few tokens, and from the prefix cache", () =>
  assertLittleCaches("nvlm-h-tiny", [MIXED]));
