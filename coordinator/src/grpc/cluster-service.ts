/** tessera.v1.Cluster. */
import { create } from "@bufbuild/protobuf";
import {
  durationToMillis,
  millisToDuration,
  ServeError,
  type ServiceHandlers,
} from "@tessera/proto";
import {
  DrainResponseSchema,
  GetClusterResponseSchema,
  GetModelResponseSchema,
  GroupState,
  type Cluster,
} from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { WireType } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { Caller } from "../access/caller.js";
import { BUILD, type Serving } from "../engine/serving.js";
import type { Front } from "../stream/front.js";
import { unary, type MethodsOf } from "./call.js";

const DRAIN_MS = 30_000;

function needAdmin({ admin, tenant }: Caller, method: string): void {
  if (!admin)
    throw new ServeError("PERMISSION_DENIED", `${method}: the key of ${tenant} is no admin's`);
}

const STATES = {
  forming: GroupState.FORMING,
  ready: GroupState.READY,
  draining: GroupState.DRAINING,
  lost: GroupState.LOST,
} as const;

function describeCluster(serving: Serving) {
  const { group, plan, settings } = serving;
  return create(GetClusterResponseSchema, {
    version: BUILD,
    state: STATES[serving.state],
    epoch: group?.epoch ?? 0n,
    placement: {
      tensorParallelSize: plan.size,
      stages: 1,
      blockSize: 32,
      blockCount: plan.blockCount,
      kvType: plan.kvType,
      weightType: plan.weightType,
      wireType: settings.placement.wireType === WireType.BF16 ? "bf16" : "f32",
      encoderRanks: plan.ranks.filter((rank) => rank.encodes).map((rank) => rank.rank),
      planHash: settings.planHash,
      crossBlockCount: settings.placement.crossBlockCount,
      vision: plan.vision,
    },
    ranks: (group?.ranks ?? []).map((rank, index) => ({
      index,
      address: rank.address,
      cpu: rank.info.cpu,
      threads: rank.info.threads,
      weightBytes: rank.weightBytes,
      cacheBytes: rank.cacheBytes,
      residentBytes: rank.residentBytes,
      lastHeard: millisToDuration(performance.now() - rank.heardAtMs),
      workerId: rank.info.workerId,
    })),
    load: { ...serving.loop.load(), steps: BigInt(group?.steps ?? 0) },
  });
}

export function clusterService(front: Front): ServiceHandlers<MethodsOf<typeof Cluster>> {
  const { serving } = front;
  const { model, context } = serving;
  return {
    getModel: unary(front, () =>
      create(GetModelResponseSchema, {
        name: context.servedName,
        modelType: model.config.modelType,
        maxModelLen: context.maxModelLen,
        vocabulary: context.tokenizer.size,
        tileSize: model.config.tile.size,
        maxTiles: context.defaultMaxTiles,
        tokensPerTile: model.config.tile.rows,
        maxImages: context.limits.maxImages,
        stopTokenIds: context.stopTokenIds,
      }),
    ),
    getCluster: unary(front, (_request, { caller }) => {
      needAdmin(caller, "GetCluster");
      return describeCluster(serving);
    }),
    drain: unary(front, async ({ deadline }, { caller }) => {
      needAdmin(caller, "Drain");
      const limitMs = deadline === undefined ? DRAIN_MS : durationToMillis(deadline);
      return create(DrainResponseSchema, { abortedRequests: await serving.drain(limitMs) });
    }),
  };
}
