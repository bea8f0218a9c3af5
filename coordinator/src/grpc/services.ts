/** tessera.v1.Inference and tessera.v1.Cluster. */
import { create } from "@bufbuild/protobuf";
import type { GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import type { sendUnaryData, ServerUnaryCall } from "@grpc/grpc-js";
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
import {
  AbortResponseSchema,
  ChoiceSchema,
  CountTokensResponseSchema,
  GenerateOnceResponseSchema,
  GenerateResponseSchema,
  type Choice,
  type Event,
  type GenerateOnceResponse,
  type GenerateRequest,
  type Inference,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { WireType } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { BUILD, type Serving } from "../engine/serving.js";
import { EventWriter } from "./events.js";

type MethodsOf<S> = S extends { method: infer M extends GenServiceMethods } ? M : never;

/** Events a client may leave unread before its request ends. */
const MAX_UNREAD_EVENTS = 4096;
const DRAIN_MS = 30_000;

function refused(serving: Serving, error: unknown): ServeError {
  const serve = ServeError.from(error);
  serving.metrics.refused.inc({ code: serve.code });
  return serve;
}

function unary<I, O>(serving: Serving, work: (request: I, signal: AbortSignal) => Promise<O> | O) {
  return (call: ServerUnaryCall<I, O>, callback: sendUnaryData<O>) => {
    const abort = new AbortController();
    call.on("cancelled", () => abort.abort(new ServeError("ABORTED", "cancelled by the client")));
    Promise.resolve()
      .then(() => work(call.request, abort.signal))
      .then(
        (response) => callback(null, response),
        (error: unknown) => callback(refused(serving, error).toStatus()),
      );
  };
}

/** Runs a request; `take` sees every event. */
function generate(
  serving: Serving,
  request: GenerateRequest,
  take: (event: Event) => void,
  signal: AbortSignal,
): Promise<void> {
  const { servedName, tokenizer } = serving.context;
  return serving.run(
    request,
    (prepared) => new EventWriter(prepared, servedName, tokenizer, take),
    signal,
  );
}

/** Events of a whole answer, put together. */
class Collector {
  readonly response: GenerateOnceResponse = create(GenerateOnceResponseSchema);

  private choice(index: number): Choice {
    const known = this.response.choices.find((choice) => choice.index === index);
    if (known !== undefined) return known;
    const fresh = create(ChoiceSchema, { index });
    this.response.choices.push(fresh);
    return fresh;
  }
  take(event: Event): void {
    const { kind } = event;
    if (kind.case === "started") this.response.started = kind.value;
    if (kind.case === "delta") {
      const choice = this.choice(kind.value.choice);
      choice.text += kind.value.text;
      choice.tokenIds.push(...kind.value.tokenIds);
      choice.logprobs.push(...kind.value.logprobs);
    }
    if (kind.case === "finished") this.choice(kind.value.choice).finished = kind.value;
    if (kind.case !== "done") return;
    if (kind.value.usage !== undefined) this.response.usage = kind.value.usage;
    if (kind.value.timings !== undefined) this.response.timings = kind.value.timings;
    this.response.choices.sort((a, b) => a.index - b.index);
  }
}

export function inferenceService(serving: Serving): ServiceHandlers<MethodsOf<typeof Inference>> {
  return {
    generate(call) {
      const abort = new AbortController();
      let unread = 0;
      call.on("cancelled", () => abort.abort(new ServeError("ABORTED", "cancelled by the client")));
      call.on("drain", () => (unread = 0));
      const write = (event: Event) => {
        if (call.cancelled) return;
        if (!call.write(create(GenerateResponseSchema, { event })) && ++unread > MAX_UNREAD_EVENTS)
          abort.abort(
            new ServeError(
              "SLOW_READER",
              `${unread} events are unread, limit ${MAX_UNREAD_EVENTS}`,
            ),
          );
      };
      generate(serving, call.request, write, abort.signal).then(
        () => call.end(),
        (error: unknown) => call.emit("error", refused(serving, error).toStatus()),
      );
    },
    generateOnce: unary(serving, async ({ request }, signal) => {
      if (request === undefined) throw ServeError.field("request", "is missing");
      const collector = new Collector();
      await generate(serving, request, (event) => collector.take(event), signal);
      return collector.response;
    }),
    resume(call) {
      const error = new ServeError("NOT_BUILT", "Resume: is not served by this version");
      call.emit("error", refused(serving, error).toStatus());
    },
    countTokens: unary(serving, async ({ request }, signal) => {
      if (request === undefined) throw ServeError.field("request", "is missing");
      const prepared = await serving.count(request, signal);
      return create(CountTokensResponseSchema, {
        promptTokens: prepared.promptIds.length,
        imageTokens: prepared.imageTokenCount,
        tiles: prepared.tileCount,
        tokenIds: prepared.returnTokenIds ? prepared.promptIds : [],
      });
    }),
    abort: unary(serving, ({ requestId }) => {
      serving.abort(requestId);
      return create(AbortResponseSchema);
    }),
  };
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
      weightType: "bf16",
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

export function clusterService(serving: Serving): ServiceHandlers<MethodsOf<typeof Cluster>> {
  const { model, context } = serving;
  return {
    getModel: unary(serving, () =>
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
    getCluster: unary(serving, () => describeCluster(serving)),
    drain: unary(serving, async ({ deadline }) => {
      const limitMs = deadline === undefined ? DRAIN_MS : durationToMillis(deadline);
      return create(DrainResponseSchema, { abortedRequests: await serving.drain(limitMs) });
    }),
  };
}
