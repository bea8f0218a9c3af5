import assert from "node:assert/strict";
import { test } from "node:test";
import { assertWithstands } from "../harness/flood.js";

test("ten times the load for 60 s: refused before pictures are decoded, answered as alone, all released, memory flat", async (t) => {
  const figures = await assertWithstands(60_000);
  t.diagnostic(JSON.stringify(figures));
  assert.equal(figures["rising"], 0, JSON.stringify(figures));
  assert.ok((figures["byTokens"] ?? 0) > 0, "no refusal for queued tokens");
});
