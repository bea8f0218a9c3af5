/** A server under more load than it can bear, for some seconds; the long one is beside it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { assertWithstands } from "../harness/flood.js";
import { get } from "../harness/http.js";
import { bodyOf, LoadClient } from "../harness/load-client.js";
import { valueOf } from "../harness/prometheus.js";

test("ten times the load for 5 s: refused before pictures are decoded, answered as alone, all released", async (t) => {
  t.diagnostic(JSON.stringify(await assertWithstands(5000)));
});

test("a deadline ends a request that waits and one that runs; others go on", async () => {
  const served = await serve(1, { flags: { maxSequences: 1 }, healthPort: 0 });
  const client = new LoadClient(served.cluster.address);
  const long = bodyOf({ tokenIds: [65, 66, 67], minTokens: 4000, maxTokens: 4000 });
  const value = async (name: string, labels = {}) =>
    valueOf((await get(served.cluster.health, "/metrics")).text, name, labels);
  const waiting = () => value("tessera_num_requests_waiting");
  try {
    let tokens = 0;
    const running = client.send(long, { onEvent: () => tokens++ });
    await eventually("the first runs", () => tokens > 1);
    const late = client.send(long, { deadlineMs: 1500 });
    await eventually("the second waits", async () => (await waiting()) === 1);
    const seen = tokens;
    const { status, answer } = await late.outcome;
    assert.deepEqual([status, answer.tokenIds, answer.text], [4, [], ""]);
    await eventually("nothing waits", async () => (await waiting()) === 0);
    await eventually("the first goes on", () => tokens > seen);
    running.cancel();
    const cut = client.send(long, { deadlineMs: 1500 });
    assert.equal((await cut.outcome).status, 4);
    assert.notEqual((await cut.outcome).answer.text, "");
    const open = () => value("tessera_num_requests_open");
    await eventually("all is released", async () => (await open()) === 0);
    assert.equal(await value("tessera_requests_cut_total", { cause: "deadline" }), 2);
    assert.equal(await value("tessera_kv_cache_usage_ratio"), 0);
  } finally {
    client.close();
    await served.stop();
  }
});
