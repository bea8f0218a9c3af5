import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import { JoinRequestSchema, WeightType } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { WorkerMetrics } from "./metrics.js";
import { model, placementOf } from "./placement.fixture.js";
import { placementHash, RankState } from "./rank.js";

const placement = placementOf();

async function open(): Promise<RankState> {
  const state = await RankState.open(
    model,
    1,
    { host: "127.0.0.1" },
    new WorkerMetrics(),
    () => undefined,
  );
  after(() => state.close());
  return state;
}

function request(state: RankState, epoch: bigint) {
  return create(JoinRequestSchema, {
    epoch,
    rank: 0,
    peers: [`127.0.0.1:${state.exchange.port}`],
    placement,
    planHash: placementHash(state.modelHash, 1, placement),
  });
}

const join = (state: RankState, epoch: bigint) =>
  state.join(request(state, epoch), () => undefined);

async function threads(): Promise<number> {
  const text = await readFile("/proc/self/status", "utf8");
  return Number(/^Threads:\s+(\d+)$/m.exec(text)?.[1]);
}

test("joins that overlap: the last one stands, the others are told, and one engine is open", async () => {
  const state = await open();
  const before = await threads();
  const epochs = [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n];
  const settled = await Promise.allSettled(epochs.map((epoch) => join(state, epoch)));
  const codeOf = (one: PromiseSettledResult<unknown>) =>
    one.status === "rejected" ? ServeError.from(one.reason).code : "fulfilled";
  const stale = settled.slice(0, -1).map(codeOf);
  assert.deepEqual(stale, Array(7).fill("STALE_EPOCH"));
  assert.equal(settled.at(-1)?.status, "fulfilled");
  assert.deepEqual([state.epoch, state.rank, state.ready], [8n, 0, true]);
  assert.ok((await threads()) <= before + 1, `${await threads()} threads, ${before} before`);
});

test("a join whose weights are of another type than the plan's is refused, naming both plans", async () => {
  const state = await open();
  const hash = (weightType: WeightType) =>
    placementHash(state.modelHash, 1, { ...placement, weightType });
  const asked = { ...request(state, 1n), placement: { ...placement, weightType: WeightType.INT4 } };
  const planHash = hash(WeightType.INT8);
  const own = hash(WeightType.INT4).slice(0, 12);
  await assert.rejects(
    state.join({ ...asked, planHash }, () => undefined),
    {
      code: "PLAN_MISMATCH",
      message: new RegExp(`rank 0 has plan ${own}, the coordinator has ${planHash.slice(0, 12)}`),
    },
  );
  const unknown = { ...asked, placement: { ...placement, weightType: 9 as WeightType } };
  await assert.rejects(
    state.join(unknown, () => undefined),
    /placement.weight_type: is 9, unknown/,
  );
});

test("weights: int4 take less than int8, int8 less than bf16; the engine is opened anew", async () => {
  const state = await open();
  const bytes: number[] = [];
  for (const [i, weightType] of [WeightType.BF16, WeightType.INT8, WeightType.INT4].entries()) {
    const of = { ...placement, weightType };
    const planHash = placementHash(state.modelHash, 1, of);
    const asked = { ...request(state, BigInt(i + 1)), placement: of, planHash };
    bytes.push((await state.join(asked, () => undefined)).weightBytes);
  }
  const [bf16 = 0, int8 = 0, int4 = 0] = bytes;
  assert.ok(int4 < int8 && int8 < bf16, bytes.join(" "));
});

test("an epoch is joined once, and none below what was fenced", async () => {
  const state = await open();
  await join(state, 3n);
  await assert.rejects(join(state, 3n), { code: "STALE_EPOCH" });
  await assert.rejects(join(state, 2n), { code: "STALE_EPOCH" });
  state.fence(9n);
  assert.equal(state.ready, false);
  await assert.rejects(join(state, 8n), { code: "STALE_EPOCH", message: /is at 9/ });
  await join(state, 9n);
  assert.deepEqual([state.epoch, state.ready], [9n, true]);
});

test("a worker's memory: a join that needs more is refused with the numbers", async () => {
  const state = await open();
  state.memoryBytes = 100 << 20;
  await assert.rejects(join(state, 1n), {
    code: "INVALID_ARGUMENT",
    message: /^memory: weights \d+, .* limit 104857600$/,
  });
  assert.equal(state.ready, false);
  state.memoryBytes = 400 << 20;
  await join(state, 2n);
});

test("a fence ends a join under way", async () => {
  const state = await open();
  const joining = assert.rejects(join(state, 1n), { code: "STALE_EPOCH", message: /5/ });
  state.fence(5n);
  await joining;
  await join(state, 6n);
  assert.equal(state.ready, true);
});

test("an exchange that cannot be joined says so, and works for the next epoch", async () => {
  const state = await open();
  const nowhere = {
    peers: ["x"],
    size: 1,
    planHash: "p",
    handle: 4711,
    deadlineMs: 1000,
    spinUs: 0,
  };
  await assert.rejects(state.exchange.join({ epoch: 4n, rank: 0, ...nowhere }), {
    code: "INTERNAL",
    message: /closed/,
  });
  await join(state, 5n);
  assert.equal(state.ready, true);
});

test("a peer that never connects: the join ends by its deadline and names the rank", async () => {
  const state = await open();
  const alone = { size: 2, planHash: "p", handle: 0, deadlineMs: 200, spinUs: 0 };
  await join(state, 1n);
  const handle = state.current(1n).handle;
  await assert.rejects(
    state.exchange.join({ epoch: 2n, rank: 1, peers: ["127.0.0.1:1", "x"], ...alone, handle }),
    { code: "RANK_LOST", message: /rank 0 did not connect within 200 ms/ },
  );
});
