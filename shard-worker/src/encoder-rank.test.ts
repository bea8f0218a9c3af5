/** Ranks that only encode tiles, beside those that hold the decoder: three workers of one process. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import {
  JoinRequestSchema,
  StepPlanSchema,
  VisionPlacement,
  type JoinRequest,
  type Placement,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { toStepPlan } from "./convert.js";
import { WorkerMetrics } from "./metrics.js";
import { model, placementOf } from "./placement.fixture.js";
import { placementHash, RankState } from "./rank.js";

const DEADLINE_MS = 10_000;

/** What a worker says it lost, in order. */
interface Member {
  state: RankState;
  lost: number[];
}

async function open(count: number): Promise<Member[]> {
  const opened = await Promise.all(
    Array.from({ length: count }, async () => {
      const lost: number[] = [];
      const state = await RankState.open(
        model,
        1,
        { host: "127.0.0.1" },
        new WorkerMetrics(),
        (rank) => lost.push(rank),
      );
      return { state, lost };
    }),
  );
  after(() => Promise.all(opened.map(({ state }) => state.close())));
  return opened;
}

function requests(members: Member[], epoch: bigint, placement: Placement): JoinRequest[] {
  const peers = members.map(({ state }) => `127.0.0.1:${state.exchange.port}`);
  const size = members.length - placement.encoderCount;
  return members.map(({ state }, rank) => {
    const planHash = placementHash(state.modelHash, size, placement);
    return create(JoinRequestSchema, { epoch, rank, peers, placement, planHash });
  });
}

function joinAll(members: Member[], epoch: bigint, placement: Placement) {
  const all = requests(members, epoch, placement);
  return Promise.all(
    members.map(({ state }, rank) => state.join(all[rank] ?? assert.fail(), () => undefined)),
  );
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (!condition()) {
    assert.ok(performance.now() < end, `${what}: not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const apart = placementOf({ vision: VisionPlacement.WORKERS, encoderCount: 2 });

test("one rank and two encoders: each holds its part only, and refuses the others' work", async () => {
  const members = await open(3);
  const infos = await joinAll(members, 1n, apart);
  const [decoder, encoder] = members.map(({ state }) => state.current(1n));
  assert.ok(decoder !== undefined && encoder !== undefined);
  const cacheBytes = infos.map((info) => info.cacheBytes > 0);
  assert.deepEqual(cacheBytes, [true, false, false]);
  assert.equal(infos[1]?.weightBytes, infos[2]?.weightBytes);
  const step = toStepPlan(create(StepPlanSchema, { epoch: 1n, stepId: 1n, deadlineMs: 1000 }), 1);
  await assert.rejects(encoder.step(step), {
    code: "INVALID_ARGUMENT",
    message: /rank 1 only encodes tiles/,
  });
  await assert.rejects(decoder.encode({ epoch: 1n, encodeId: 1n, tiles: [] }), {
    code: "INVALID_ARGUMENT",
    message: /rank 0 encodes none/,
  });
});

test("an encoder that goes: its decoders name it, the other encoder hears of nothing", async () => {
  const members = await open(3);
  await joinAll(members, 1n, apart);
  const [decoder, beside, gone] = members;
  assert.ok(decoder !== undefined && beside !== undefined && gone !== undefined);
  // Its streams end, as when it dies.
  gone.state.fence(2n);
  await until(() => decoder.lost.length > 0, "the loss");
  assert.deepEqual([decoder.lost, beside.lost, beside.state.ready], [[2], [], true]);
  assert.throws(
    () => decoder.state.current(1n),
    (error) => {
      const { code, message, metadata } = ServeError.from(error);
      assert.deepEqual([code, metadata["rank"]], ["RANK_LOST", "2"]);
      assert.match(message, /^lost by rank 0: its stream/);
      return true;
    },
  );
});

test("weights stay over epochs while the part is the same, and change with the placement", async () => {
  const members = await open(2);
  const tensor = placementOf({ vision: VisionPlacement.TENSOR });
  const whole = placementOf({ vision: VisionPlacement.REPLICATE });
  const [cut] = await joinAll(members, 1n, tensor);
  const handles = () => members.map(({ state }) => state.current(state.epoch).handle);
  const first = handles();
  await joinAll(members, 2n, tensor);
  assert.deepEqual(handles(), first);
  const [more] = await joinAll(members, 3n, whole);
  assert.ok((more?.weightBytes ?? 0) > (cut?.weightBytes ?? Infinity));
});

const refusals: [string, Partial<Placement>, { rank: number; peers: number }, RegExp][] = [
  [
    "as many encoders as peers",
    { vision: VisionPlacement.WORKERS, encoderCount: 1 },
    { rank: 0, peers: 1 },
    /placement.encoder_count.*1 of 1/,
  ],
  [
    "encoders without their placement",
    { vision: VisionPlacement.REPLICATE, encoderCount: 1 },
    { rank: 0, peers: 2 },
    /placement.encoder_count.*1 of 2 ranks with vision replicate/,
  ],
  [
    "their placement without encoders",
    { vision: VisionPlacement.WORKERS, encoderCount: 0 },
    { rank: 0, peers: 2 },
    /placement.encoder_count.*0 of 2 ranks with vision workers/,
  ],
  [
    "an unknown placement",
    { vision: 9 as VisionPlacement },
    { rank: 0, peers: 1 },
    /placement.vision.*9/,
  ],
  [
    "a rank beyond the peers",
    { vision: VisionPlacement.TENSOR },
    { rank: 2, peers: 2 },
    /rank.*2.*has 2/,
  ],
];

for (const [name, facts, { rank, peers }, message] of refusals)
  test(`a join with ${name} is refused by name and value`, async () => {
    const [member = assert.fail()] = await open(1);
    const { state } = member;
    const request = create(JoinRequestSchema, {
      epoch: 1n,
      rank,
      peers: Array<string>(peers).fill(`127.0.0.1:${state.exchange.port}`),
      placement: placementOf(facts),
      planHash: "p",
    });
    await assert.rejects(
      state.join(request, () => undefined),
      { code: "INVALID_ARGUMENT", message },
    );
    assert.equal(state.epoch, 0n);
  });
