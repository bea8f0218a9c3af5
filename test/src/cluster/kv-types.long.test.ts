/** The int8 cache of each variant through real clusters of 1, 2 and 4 workers. */
import { test } from "node:test";
import { assertLittleCaches, LITTLE_CACHES } from "../harness/little-cache.js";

for (const model of ["nvlm-d-tiny", "nvlm-x-tiny", "nvlm-h-tiny"])
  test(`${model}, int8: the same bits with little cache, in steps of few tokens, and from the prefix cache`, () =>
    assertLittleCaches(model, LITTLE_CACHES));
