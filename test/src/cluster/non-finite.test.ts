/** A model whose logits overflow: the request fails and is counted, a logit that is not finite is never a token. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startCluster } from "@tessera/cli";
import { TesseraClient, TesseraError } from "@tessera/client";
import { FLAGS } from "../harness/cluster.js";
import { copyModel } from "../harness/damage.js";

/** The largest bf16. */
const HUGE = Buffer.from([0x7f, 0x7f]);

test("a logit that is not finite is NON_FINITE with its position, counted, and the next request is served", async () => {
  const model = await copyModel();
  await model.editData("language_model.lm_head.weight", (bytes) => bytes.fill(HUGE));
  const cluster = await startCluster({
    model: model.dir,
    workers: 2,
    threads: 1,
    port: 0,
    healthPort: 0,
    flags: { ...FLAGS, servedModelName: "huge" },
  });
  const client = new TesseraClient({ addresses: [cluster.address], deadlineMs: 30_000 });
  try {
    for (const sampling of [{}, { temperature: 1, topP: 0.5 }]) {
      const request = { tokenIds: [65, 66, 67], maxTokens: 4, sampling };
      const error = await client.generateOnce(request).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof TesseraError, String(error));
      assert.equal(error.code, "NON_FINITE", error.message);
      assert.match(error.message, /position 3 is not finite/);
    }
    const { load } = await client.getCluster();
    assert.deepEqual([load?.usedBlocks, load?.runningSequences], [0, 0]);
    const metrics = await fetch(`http://${cluster.health ?? ""}/metrics`, {
      signal: AbortSignal.timeout(5000),
    });
    assert.match(await metrics.text(), /^tessera_non_finite_logits_total 2$/m);
  } finally {
    client.close();
    await cluster.stop();
    await model.remove();
  }
});
