/** A small placement of the bundled model, for tests of ranks. */
import { fileURLToPath } from "node:url";
import { create } from "@bufbuild/protobuf";
import {
  KvType,
  PlacementSchema,
  WireType,
  type Placement,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";

export const model = fileURLToPath(new URL("../../models/nvlm-d-tiny", import.meta.url));

export function placementOf(facts: Partial<Placement> = {}): Placement {
  const { $typeName: _type, ...rest } = facts;
  return create(PlacementSchema, {
    kvType: KvType.F32,
    wireType: WireType.F32,
    blockCount: 8,
    maxBatchedTokens: 64,
    maxSequences: 4,
    maxWantedRows: 4,
    maxTiles: 2,
    maxEmbeddings: 8,
    collectiveDeadlineMs: 5000,
    maxModelLen: 256,
    maxStepsInFlight: 1,
    selectableIds: 100,
    ...rest,
  });
}
