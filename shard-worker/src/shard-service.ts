/** The Shard service: what the coordinator asks of this rank. */
import { create } from "@bufbuild/protobuf";
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall } from "@grpc/grpc-js";
import { cpuKind } from "@tessera/native/engine";
import { type Progress, ServeError, type ServiceHandlers } from "@tessera/proto";
import {
  EncodeResponseSchema,
  FenceResponseSchema,
  GetInfoResponseSchema,
  GetStatsResponseSchema,
  JoinResponseSchema,
  MoreCandidatesResponseSchema,
  ReleaseResponseSchema,
  type Shard,
  type StepRequest,
  type StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { fromRow, fromStep, toStepPlan } from "./convert.js";
import type { WorkerMetrics } from "./metrics.js";
import { BUILD, fromNative, type RankState } from "./rank.js";

type Methods = typeof Shard extends { method: infer M extends GenServiceMethods } ? M : never;

export interface ShardContext {
  state: RankState;
  metrics: WorkerMetrics;
  /** Of this process; another process has another one. */
  workerId: string;
  threads: number;
  memoryBytes: number;
  idleBytes: number;
  exchangeAddress: string;
  /** Steps and encodes in flight; liveness is judged by it. */
  progress: Progress;
}

/** A unary handler whose failures become statuses. */
function unary<I, O>(work: (request: I) => Promise<O> | O) {
  return (call: ServerUnaryCall<I, O>, callback: sendUnaryData<O>) => {
    Promise.resolve()
      .then(() => work(call.request))
      .then(
        (response) => callback(null, response),
        (error: unknown) => callback(fromNative(error).toStatus()),
      );
  };
}

/** Beyond the work's own deadline: without its end by then the process is stuck. */
const STUCK_GRACE_MS = 10_000;

/** Steps run in the order of their plans: the engine's queue keeps it. */
function stepStream(
  context: ShardContext,
  call: ServerDuplexStream<StepRequest, StepResponse>,
): void {
  const { state, metrics, progress } = context;
  let failed = false;
  const fail = (error: unknown) => {
    if (failed) return;
    failed = true;
    metrics.errors.inc();
    call.emit("error", fromNative(error).toStatus());
  };
  call.on("data", (request: StepRequest) => {
    if (failed) return;
    const plan = request.plan;
    try {
      if (plan === undefined) throw ServeError.field("plan", "is missing");
      const engine = state.current(plan.epoch);
      progress
        .track(plan.deadlineMs + STUCK_GRACE_MS, () =>
          engine.step(toStepPlan(plan, state.model.config.tile.rows)),
        )
        .then((outcome) => {
          metrics.observeStep(outcome);
          if (!failed) call.write(fromStep(plan, outcome));
        }, fail);
    } catch (error) {
      fail(error);
    }
  });
  call.on("end", () => {
    if (!failed) call.end();
  });
  call.on("error", () => {
    failed = true;
  });
}

function joinStream(state: RankState, call: Parameters<ServiceHandlers<Methods>["join"]>[0]): void {
  const progress = (done: number, total: number) =>
    call.write(
      create(JoinResponseSchema, {
        kind: {
          case: "progress",
          value: { stage: "loading", done: BigInt(done), total: BigInt(total) },
        },
      }),
    );
  state.join(call.request, progress).then(
    (info) => {
      call.write(
        create(JoinResponseSchema, {
          kind: {
            case: "ready",
            value: {
              weightBytes: BigInt(info.weightBytes),
              cacheBytes: BigInt(info.cacheBytes),
              workspaceBytes: BigInt(info.workspaceBytes),
              residentBytes: BigInt(process.memoryUsage.rss()),
            },
          },
        }),
      );
      call.end();
    },
    (error: unknown) => call.emit("error", fromNative(error).toStatus()),
  );
}

export function shardService(context: ShardContext): ServiceHandlers<Methods> {
  const { state, metrics, progress } = context;
  return {
    getInfo: unary(() =>
      create(GetInfoResponseSchema, {
        workerId: context.workerId,
        build: BUILD,
        cpu: cpuKind(),
        threads: context.threads,
        memoryBytes: BigInt(context.memoryBytes),
        idleBytes: BigInt(context.idleBytes),
        modelHash: state.modelHash,
        epoch: state.epoch,
        exchangeAddress: context.exchangeAddress,
      }),
    ),
    join: (call) => joinStream(state, call),
    step: (call) => stepStream(context, call),
    encode: unary(async (request) => {
      const plan = {
        epoch: request.epoch,
        encodeId: request.encodeId,
        tiles: request.tiles.map(({ embeddingId, pixels }) => ({ embeddingId, pixels })),
      };
      const engine = state.current(request.epoch);
      const boundMs = request.deadlineMs + STUCK_GRACE_MS;
      const outcome = await progress.track(boundMs, () => engine.encode(plan));
      metrics.observeEncode(request.tiles.length, outcome.computeNs);
      return create(EncodeResponseSchema, { computeNs: outcome.computeNs });
    }),
    moreCandidates: unary(async (request) => {
      const row = await state.current(request.epoch).moreCandidates(request);
      return create(MoreCandidatesResponseSchema, { row: fromRow(row) });
    }),
    release: unary((request) => {
      state.current(request.epoch).release(request);
      return create(ReleaseResponseSchema);
    }),
    fence: unary((request) => {
      state.fence(request.epoch);
      return create(FenceResponseSchema);
    }),
    getStats: unary(() => {
      const { sequences, embeddings, streams, lastStepId } = state.stats();
      return create(GetStatsResponseSchema, {
        epoch: state.epoch,
        rank: Math.max(0, state.rank),
        lastStepId,
        sequences,
        embeddings,
        streams,
        residentBytes: BigInt(process.memoryUsage.rss()),
      });
    }),
  };
}
