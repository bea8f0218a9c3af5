import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { KvType, StepPlanSchema } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { toPlacementSpec, toStepPlan } from "./convert.js";
import { placementOf } from "./placement.fixture.js";

test("toPlacementSpec: each type of cache has its name, one that is not known is refused", () => {
  const types = [KvType.UNSPECIFIED, KvType.F32, KvType.BF16, KvType.INT8];
  assert.deepEqual(
    types.map((kvType) => toPlacementSpec(placementOf({ kvType })).kvType),
    ["f32", "f32", "bf16", "int8"],
  );
  assert.throws(() => toPlacementSpec(placementOf({ kvType: 9 as KvType })), {
    code: "INVALID_ARGUMENT",
    message: "placement.kv_type: is 9, unknown",
  });
});

test("toStepPlan: a stream is each tile's tag, then as many rows as a tile has", () => {
  const plan = create(StepPlanSchema, {
    openedStreams: [
      {
        streamId: 9n,
        tiles: [
          { tagTokenIds: [5, 6], embeddingId: 20n, encoderRank: 1 },
          { tagTokenIds: [], embeddingId: 21n, encoderRank: 3 },
        ],
        blockIds: [4, 2],
      },
    ],
    closedStreamIds: [7n],
  });
  const { openedStreams, closedStreamIds } = toStepPlan(plan, 3);
  assert.deepEqual(openedStreams, [
    {
      streamId: 9n,
      tokenIds: [5, 6, -1, -1, -1, -1, -1, -1],
      imageRows: [
        { row: 2, embeddingId: 20n, firstRow: 0, count: 3, encoderRank: 1 },
        { row: 5, embeddingId: 21n, firstRow: 0, count: 3, encoderRank: 3 },
      ],
      blockIds: [4, 2],
    },
  ]);
  assert.deepEqual(closedStreamIds, [7n]);
});

test("toStepPlan: what a slice's rows see reaches the engine", () => {
  const ranges = [{ streamId: 9n, first: 0, end: 16 }];
  const plan = create(StepPlanSchema, {
    slices: [{ sequenceId: 1n, tokenIds: [1, 2], seen: [{ row: 1, count: 1, ranges }] }],
  });
  const [slice] = toStepPlan(plan, 16).slices;
  const [seen] = slice?.seen ?? [];
  assert.deepEqual([seen?.row, seen?.count], [1, 1]);
  assert.deepEqual(
    seen?.ranges.map(({ streamId, first, end }) => ({ streamId, first, end })),
    ranges,
  );
});
