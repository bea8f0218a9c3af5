/** A worker over a real channel whose answers are in the test's hands, and groups of such workers. */
import assert from "node:assert/strict";
import { after } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { type ServeError, serviceDefinition } from "@tessera/proto";
import {
  GetInfoResponseSchema,
  JoinResponseSchema,
  KvType,
  MoreCandidatesResponseSchema,
  VisionPlacement,
  Shard,
  StepResponseSchema,
  WeightType,
  WireType,
  type EncodeRequest,
  type JoinRequest,
  type StepPlan,
  type StepRequest,
  type StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { Group, type GroupSettings, type WorkerFacts } from "./group.js";

export const PLACEMENT = {
  kvType: KvType.F32,
  wireType: WireType.F32,
  blockCount: 1,
  maxBatchedTokens: 1,
  maxSequences: 1,
  maxWantedRows: 1,
  maxTiles: 1,
  maxEmbeddings: 1,
  collectiveDeadlineMs: 1,
  maxModelLen: 1,
  maxStepsInFlight: 1,
  selectableIds: 1,
  vision: VisionPlacement.REPLICATE,
  encoderCount: 0,
  maxStreamRows: 0,
  crossBlockCount: 0,
  weightType: WeightType.BF16,
};
export const STEP_DEADLINE_MS = 20_000;
export const SETTINGS: GroupSettings = {
  placement: PLACEMENT,
  planHash: "p",
  modelHash: "m",
  joinDeadlineMs: 600_000,
  stepDeadlineMs: STEP_DEADLINE_MS,
};

type Answer<T> = (error: object | null, value?: T) => void;

/** What was asked of the worker, in order. */
export class FakeShard {
  readonly joins: JoinRequest[] = [];
  readonly plans: StepPlan[] = [];
  readonly encodes: EncodeRequest[] = [];
  /** How often more candidates were asked for; answered with `moreFails`, or nothing. */
  more = 0;
  moreFails: object | null = null;
  private waiting: (() => void)[] = [];
  private readonly server = new Server();
  steps: ServerDuplexStream<StepRequest, StepResponse> | undefined;
  endEncode: Answer<object> | undefined;

  /** Resolves when something more was asked. */
  asked(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }
  private tell(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** The answer to the last plan. */
  answer(): void {
    const { stepId } = this.plans.at(-1) ?? assert.fail("no plan came");
    this.steps?.write(create(StepResponseSchema, { stepId }));
  }

  /** As if the process died. */
  kill(): void {
    this.server.forceShutdown();
  }

  private get service() {
    return {
      getInfo: (_call: unknown, answer: Answer<object>) =>
        answer(null, create(GetInfoResponseSchema, { workerId: "w", modelHash: "m" })),
      join: (call: { request: JoinRequest; write: (message: object) => void; end: () => void }) => {
        this.joins.push(call.request);
        call.write(create(JoinResponseSchema, { kind: { case: "ready", value: {} } }));
        call.end();
      },
      step: (call: ServerDuplexStream<StepRequest, StepResponse>) => {
        this.steps = call;
        call.on("data", ({ plan }: StepRequest) => {
          this.plans.push(plan ?? assert.fail());
          this.tell();
        });
      },
      encode: (call: { request: EncodeRequest }, answer: Answer<object>) => {
        this.encodes.push(call.request);
        this.endEncode = answer;
        this.tell();
      },
      moreCandidates: (_call: unknown, answer: Answer<object>) => {
        this.more++;
        if (this.moreFails !== null) answer(this.moreFails);
        else answer(null, create(MoreCandidatesResponseSchema));
      },
    };
  }

  /** → its address. */
  async listen(): Promise<string> {
    this.server.addService(serviceDefinition(Shard), this.service);
    const port = await new Promise<number>((resolve, reject) =>
      this.server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, taken) =>
        error === null ? resolve(taken) : reject(error),
      ),
    );
    after(() => this.server.forceShutdown());
    return `127.0.0.1:${port}`;
  }
}

/** A group of `count` workers; `choose` gives its settings. */
export async function formGroup(
  count: number,
  choose: (workers: WorkerFacts[]) => GroupSettings = () => SETTINGS,
) {
  const shards = Array.from({ length: count }, () => new FakeShard());
  const addresses = await Promise.all(shards.map((shard) => shard.listen()));
  const lost: ServeError[] = [];
  const members = addresses.map((address) => ({ address, workerId: undefined }));
  const group = await Group.form(choose, members, {
    above: 0n,
    onLost: (error) => lost.push(error),
    onProgress: () => undefined,
    onUnreachable: () => undefined,
  });
  after(() => group.close());
  return { shards, group, lost };
}
