/** What `planPlacement` foretells is what engines and a cluster take and send. */
import { GREEDY } from "@tessera/native/engine";
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { TesseraClient } from "@tessera/client";
import {
  DIRECT_BYTES,
  exchangeBytes,
  KV_TYPES,
  openModel,
  planPlacement,
  rankProgram,
  type KvType,
  type WeightType,
} from "@tessera/model";
import { closeGroup, goldenTiles, openGroup } from "../harness/engines.js";
import type { Way } from "../harness/golden-runner.js";
import { serveInProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";

const SIZES = [1, 2, 4, 8];
const { config } = await openModel(root("models/nvlm-d-tiny"));
const hidden = config.decoder.hiddenSize;

/** Types of cache and weights. */
const TYPES: [KvType, WeightType][] = [
  ...KV_TYPES.map((kvType): [KvType, WeightType] => [kvType, "bf16"]),
  ["f32", "int8"],
  ["int8", "int4"],
];

for (const size of SIZES)
  for (const [kvType, weightType] of TYPES)
    test(`${size} engines, cache ${kvType}, weights ${weightType}: weights, cache and workspace take the planned bytes`, async () => {
      const options = { size, kvType, weightType, selectableIds: 1024, maxModelLen: 512 };
      const engines = await openGroup(root("models/nvlm-d-tiny"), options);
      const got = engines.map((engine) => engine.info());
      await closeGroup(engines);
      const { ranks } = planPlacement(config, { size, kvType, weightType, maxModelLen: 512 });
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

const PLACED: Pick<Way, "size" | "vision" | "encoders">[] = [
  { size: 2 },
  { size: 8 },
  { size: 1, vision: "tensor" },
  { size: 2, vision: "tensor" },
  { size: 8, vision: "tensor" },
  { size: 1, vision: "workers", encoders: 1 },
  { size: 2, vision: "workers", encoders: 2 },
];
const [tile] = (await goldenTiles(["document-06.jpg"])).flat();
for (const variant of ["d", "x", "h"])
  for (const [i, placed] of PLACED.entries())
    test(`nvlm-${variant}-tiny, ${JSON.stringify(placed)}: memory and bytes sent for a tile are as planned`, async () => {
      const dir = root(`models/nvlm-${variant}-tiny`);
      const { size, vision = "replicate", encoders = 0 } = placed;
      const kvType = KV_TYPES[i % KV_TYPES.length] ?? "f32";
      const options = { size, kvType, maxModelLen: 512 };
      const engines = await openGroup(dir, { ...placed, ...options, selectableIds: 1024 });
      const tiles = tile === undefined ? [] : [{ embeddingId: 1n, pixels: tile }];
      // Where the encoder is cut every rank takes part in a tile, else one of them encodes it.
      const first = vision === "workers" ? size : 0;
      const involved = engines.slice(first, vision === "tensor" ? size : first + 1);
      const encodes = await Promise.all(
        involved.map((engine) => engine.encode({ epoch: 1n, encodeId: 1n, tiles })),
      );
      const got = engines.map((engine) => engine.info());
      await closeGroup(engines);
      const where = vision === "workers" ? { visionWorkers: encoders } : { vision };
      const plan = planPlacement((await openModel(dir)).config, { ...options, ...where });
      assert.deepEqual(
        got.map((rank) => [rank.weightBytes, rank.cacheBytes, rank.workspaceBytes]),
        plan.ranks.map((rank) => [
          rank.weightBytes,
          rank.cacheBytes + rank.crossCacheBytes,
          rank.workspaceBytes,
        ]),
      );
      const sent = encodes.reduce((sum, outcome) => sum + Number(outcome.exchangeBytes), 0);
      assert.equal(sent, plan.exchangeBytesPerTile);
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
