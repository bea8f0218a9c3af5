/** `--vision auto` on workers that report their memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TesseraClient } from "@tessera/client";
import { openModel, planPlacement, rankBytes } from "@tessera/model";
import { essence, requestOf } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { serveInProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";

const SIZE = 2;
const goldens = await readGoldens();
const request = await requestOf(goldens.find(({ images }) => images.length > 0) ?? assert.fail());
const { config } = await openModel(root("models/nvlm-d-tiny"));
const plan = planPlacement(config, { size: SIZE, kvType: "f32", vision: "replicate" });
/** What both workers of this host need together with the whole encoder on each. */
const enough = SIZE * Math.max(...plan.ranks.map(rankBytes));

/** What a cluster of workers with this memory chooses, and what it answers. */
async function chosen(memoryBytes: number) {
  const cluster = await serveInProcess(SIZE, {}, { memoryBytes });
  const { address } = cluster.coordinator;
  const client = new TesseraClient({ addresses: [address], deadlineMs: 60_000 });
  try {
    const answer = essence(await client.generateOnce(request));
    const { placement = assert.fail(), ranks } = await client.getCluster();
    return { answer, vision: placement.vision, weightBytes: ranks.map((r) => r.weightBytes) };
  } finally {
    client.close();
    await cluster.close();
  }
}

test("auto: whole where the workers' memory holds it, else cut; the same bits", async () => {
  const whole = await chosen(enough);
  const cut = await chosen(enough - 1);
  assert.deepEqual([whole.vision, cut.vision], ["replicate", "tensor"]);
  cut.weightBytes.forEach((bytes, rank) =>
    assert.ok(bytes < (whole.weightBytes[rank] ?? 0n), `rank ${rank}: ${bytes} bytes`),
  );
  assert.deepEqual(cut.answer, whole.answer);
});
