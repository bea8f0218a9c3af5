/** What `planPlacement` foretells is what engines and a cluster take and send. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { TesseraClient } from "@tessera/client";
import { DIRECT_BYTES, exchangeBytes, openModel, planPlacement, rankProgram } from "@tessera/model";
import { closeGroup, GREEDY, openGroup } from "../harness/engines.js";
import { serveInProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";

const SIZES = [1, 2, 4, 8];
const { config } = await openModel(root("models/nvlm-d-tiny"));
const hidden = config.decoder.hiddenSize;

for (const size of SIZES)
  for (const kvType of ["f32", "bf16"] as const)
    test(`${size} engines, ${kvType}: weights, cache and workspace take the planned bytes`, async () => {
      const options = { size, kvType, selectableIds: 1024, maxModelLen: 512 };
      const engines = await openGroup(root("models/nvlm-d-tiny"), options);
      const got = engines.map((engine) => engine.info());
      await closeGroup(engines);
      const { ranks } = planPlacement(config, { size, kvType, maxModelLen: 512 });
      assert.deepEqual(
        got.map(({ weightBytes, cacheBytes, workspaceBytes }) => [
          weightBytes,
          cacheBytes,
          workspaceBytes,
        ]),
        ranks.map(({ weightBytes, cacheBytes, workspaceBytes }) => [
          weightBytes,
          cacheBytes,
          workspaceBytes,
        ]),
      );
    });

/** Rows whose partials are just within what is sent directly, and one more. */
const edge = DIRECT_BYTES / 4 / hidden;
for (const size of [2, 4, 8])
  for (const rows of [1, 7, edge, edge + 1, 300])
    test(`${size} engines: a step of ${rows} rows sends the planned bytes`, async () => {
      const options = { size, kvType: "f32" as const, selectableIds: 1024, maxModelLen: 512 };
      const engines = await openGroup(root("models/nvlm-d-tiny"), options);
      const open = { sequenceId: 1n, promptLength: rows, tokenIds: [], sampling: GREEDY };
      const slice = {
        sequenceId: 1n,
        startPosition: 0,
        tokenIds: Array.from({ length: rows }, (_, i) => i),
        firstBlock: 0,
        blockIds: Array.from({ length: Math.ceil(rows / 32) }, (_, i) => i),
        imageRows: [],
        wanted: [],
      };
      const plan = {
        epoch: 1n,
        stepId: 1n,
        releasedStep: 0n,
        deadlineMs: 20_000,
        opened: [open],
        closedSequenceIds: [],
        releasedEmbeddingIds: [],
        slices: [slice],
      };
      const outcomes = await Promise.all(engines.map((engine) => engine.step(plan)));
      await closeGroup(engines);
      const sent = outcomes.reduce((sum, { exchangeBytes: bytes }) => sum + Number(bytes), 0);
      const { step } = rankProgram(config, { rank: 0, size });
      assert.equal(sent, exchangeBytes(step, { size, rows, wireType: "f32" }));
    });

/** `tessera_worker_exchange_sent_bytes_total` of every worker, in sum. */
async function sentBytes(addresses: (string | undefined)[]): Promise<number> {
  const texts = await Promise.all(
    addresses.map(async (address) => {
      const answer = await fetch(`http://${address}/metrics`, {
        signal: AbortSignal.timeout(5000),
      });
      return answer.text();
    }),
  );
  return texts.reduce((sum, text) => {
    const value = /^tessera_worker_exchange_sent_bytes_total(?:\{[^}]*\})? (\S+)$/m.exec(text)?.[1];
    return sum + Number(value);
  }, 0);
}

test("a cluster of two reports the planned bytes for a prompt and its decoded tokens", async () => {
  const served = await serveInProcess(2, {});
  after(() => served.close());
  const { workers, coordinator } = served;
  const client = new TesseraClient({ addresses: [coordinator.address], deadlineMs: 60_000 });
  const addresses = workers.map(({ healthAddress }) => healthAddress);
  const before = await sentBytes(addresses);
  const [prompt, answer] = [100, 9];
  const tokenIds = Array.from({ length: prompt }, (_, i) => 60 + (i % 30));
  await client.generateOnce({ tokenIds, maxTokens: answer, minTokens: answer });
  const sent = (await sentBytes(addresses)) - before;
  client.close();
  const { step } = rankProgram(config, { rank: 0, size: 2 });
  const bytes = (rows: number) => exchangeBytes(step, { size: 2, rows, wireType: "f32" });
  const { exchangeBytesPerToken } = planPlacement(config, { size: 2, kvType: "f32" });
  assert.equal(bytes(1), exchangeBytesPerToken);
  assert.equal(sent, bytes(prompt) + (answer - 1) * exchangeBytesPerToken);
});
