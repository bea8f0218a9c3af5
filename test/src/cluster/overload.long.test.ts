import { test } from "node:test";
import { assertWithstands } from "../harness/flood.js";

test("ten times the load for 60 s: refused before pictures are decoded, answered as alone, all released", async (t) => {
  t.diagnostic(JSON.stringify(await assertWithstands(60_000)));
});
