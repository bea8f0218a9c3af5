import { test } from "node:test";
import { assertNoZombies } from "../harness/leavers.js";

test("10,000 clients that leave at any moment, over gRPC and HTTP: nothing is left of them", async (t) => {
  t.diagnostic(JSON.stringify(await assertNoZombies(10_000)));
});
