/** A group over real channels; the workers' answers are in the test's hands. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import {
  EncodeResponseSchema,
  VisionPlacement,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { FakeShard, formGroup, PLACEMENT, SETTINGS, STEP_DEADLINE_MS } from "./shard.fixture.js";

const PLAN = {
  releasedStep: 0n,
  opened: [],
  closedSequenceIds: [],
  releasedEmbeddingIds: [],
  slices: [],
  openedStreams: [],
  closedStreamIds: [],
  copiedBlocks: [],
  masks: [],
};
const TILE = { embeddingId: 1n, pixels: new Uint8Array(3) };
const TILES = new Map([[0, [TILE]]]);
const QUERY = { stepId: 1n, sequenceId: 1n, row: 0, count: 1 };
const internal = new ServeError("INTERNAL", "bytes cannot be allocated");

async function start() {
  const { shards, group, lost } = await formGroup(1);
  const [worker = new FakeShard()] = shards;
  worker.moreFails = internal.toStatus();
  return { worker, group, lost };
}

test("group: a failed moreCandidates ends the epoch, and the step under way with it", async () => {
  const { worker, group, lost } = await start();
  const step = group.step(PLAN);
  await worker.asked();
  const failed = assert.rejects(step, { code: "INTERNAL" });
  await assert.rejects(group.moreCandidates(QUERY), {
    code: "INTERNAL",
    message: /^rank 0 .*bytes cannot be allocated/,
  });
  await failed;
  assert.deepEqual(lost, [group.failure]);
  await assert.rejects(group.step(PLAN), (error) => error === group.failure);
});

test("group: a failed encode ends the epoch with what the rank said", async () => {
  const { worker, group, lost } = await start();
  const encode = group.encode(TILES, 1);
  await worker.asked();
  worker.endEncode?.(internal.toStatus());
  await assert.rejects(encode, { code: "INTERNAL", message: /bytes cannot be allocated/ });
  assert.deepEqual(lost, [group.failure]);
});

test("group: a step stream that ends with INTERNAL ends the epoch with what the rank said", async () => {
  const { worker, group, lost } = await start();
  const step = group.step(PLAN);
  await worker.asked();
  worker.steps?.emit("error", internal.toStatus());
  await assert.rejects(step, { code: "INTERNAL", message: /bytes cannot be allocated/ });
  assert.deepEqual(lost, [group.failure]);
});

test("group: close settles the step under way and tells nobody of a loss", async () => {
  const { worker, group, lost } = await start();
  const step = group.step(PLAN);
  await worker.asked();
  group.close();
  await assert.rejects(step, (error) => error === group.failure);
  assert.deepEqual([group.failure?.code, lost], ["NOT_READY", []]);
});

test("group: what the ranks encode is added to a step's deadline, until it is answered", async () => {
  const { worker, group } = await start();
  const encode = group.encode(TILES, 7000);
  await worker.asked();
  const beside = group.step(PLAN);
  await worker.asked();
  worker.answer();
  await beside;
  worker.endEncode?.(null, create(EncodeResponseSchema, { computeNs: 12_000_000n }));
  assert.equal(await encode, 12);
  const alone = group.step(PLAN);
  await worker.asked();
  worker.answer();
  await alone;
  const deadlines = worker.plans.map((plan) => plan.deadlineMs);
  assert.deepEqual(deadlines, [STEP_DEADLINE_MS + 7000, STEP_DEADLINE_MS]);
});

/** Two ranks that hold the decoder, two that only encode. */
async function startApart() {
  const placement = { ...PLACEMENT, vision: VisionPlacement.WORKERS, encoderCount: 2 };
  const { shards, group, lost } = await formGroup(4, () => ({ ...SETTINGS, placement }));
  const [first, second, third, fourth] = shards;
  assert.ok(first && second && third && fourth);
  return { decoders: [first, second], encoders: [third, fourth], shards, group, lost };
}

test("group: encoders of their own join like the others, with the same peers and plan", async () => {
  const { shards, group } = await startApart();
  const joins = shards.map(({ joins: [join] }) => join ?? assert.fail());
  assert.deepEqual(
    joins.map(({ rank, peers, planHash }) => [rank, peers.length, planHash]),
    [0, 1, 2, 3].map((rank) => [rank, 4, "p"]),
  );
  assert.deepEqual([group.size, group.encoders, group.encodesTogether], [2, [2, 3], false]);
});

test("group: encoders of their own get no plan and no question for candidates", async () => {
  const { decoders, encoders, group } = await startApart();
  const asked = decoders.map((shard) => shard.asked());
  const step = group.step(PLAN);
  await Promise.all(asked);
  for (const shard of decoders) shard.answer();
  assert.equal((await step).length, 2);
  await group.moreCandidates(QUERY);
  assert.deepEqual(
    [...decoders, ...encoders].map(({ plans, more }) => [plans.length, more]),
    [
      [1, 1],
      [1, 1],
      [0, 0],
      [0, 0],
    ],
  );
});

test("group: an idle encoder that dies ends the epoch and is named", async () => {
  const { encoders, group, lost } = await startApart();
  encoders[1]?.kill();
  const end = performance.now() + 5000;
  while (lost.length === 0) {
    assert.ok(performance.now() < end, "nobody noticed within 5 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.deepEqual([group.failure?.code, group.failure?.metadata["rank"]], ["RANK_LOST", "3"]);
  await assert.rejects(group.step(PLAN), /rank 3 \(127\.0\.0\.1:\d+\)/);
});

test("group: an encoder that dies while it encodes is named by what waits for it", async () => {
  const { encoders, group, lost } = await startApart();
  const [, encoder] = encoders;
  assert.ok(encoder);
  const asked = encoder.asked();
  const encode = group.encode(new Map([[3, [TILE]]]), 1);
  await asked;
  encoder.kill();
  await assert.rejects(encode, { code: "RANK_LOST", message: /^rank 3 / });
  assert.deepEqual(lost, [group.failure]);
});

for (const [name, vision, size, encodes] of [
  ["replicate over 2 ranks: tiles are dealt out", VisionPlacement.REPLICATE, 2, false],
  ["tensor over 2 ranks: every rank gets every tile", VisionPlacement.TENSOR, 2, true],
  ["tensor on 1 rank: it is whole there", VisionPlacement.TENSOR, 1, false],
] as const)
  test(`group: ${name}`, async () => {
    const placement = { ...PLACEMENT, vision };
    const { group } = await formGroup(size, () => ({ ...SETTINGS, placement }));
    const ranks = Array.from({ length: size }, (_, rank) => rank);
    assert.deepEqual([group.encoders, group.encodesTogether], [ranks, encodes]);
  });
