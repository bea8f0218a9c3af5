/** A group over real channels; the worker's answers are in the test's hands. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  EncodeResponseSchema,
  GetInfoResponseSchema,
  JoinResponseSchema,
  KvType,
  VisionPlacement,
  Shard,
  StepResponseSchema,
  WireType,
  type EncodeRequest,
  type StepPlan,
  type StepRequest,
  type StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { Group } from "./group.js";

const PLACEMENT = {
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
};
const PLAN = {
  releasedStep: 0n,
  opened: [],
  closedSequenceIds: [],
  releasedEmbeddingIds: [],
  slices: [],
  openedStreams: [],
  closedStreamIds: [],
};
const TILES = new Map([[0, [{ embeddingId: 1n, pixels: new Uint8Array(3) }]]]);
const QUERY = { stepId: 1n, sequenceId: 1n, row: 0, count: 1 };
const STEP_DEADLINE_MS = 20_000;
const internal = new ServeError("INTERNAL", "bytes cannot be allocated");

type Answer<T> = (error: object | null, value?: T) => void;

/** What was asked of the worker, in order. */
class Worker {
  readonly plans: StepPlan[] = [];
  private waiting: (() => void)[] = [];
  steps: ServerDuplexStream<StepRequest, StepResponse> | undefined;
  endEncode: Answer<object> | undefined;

  /** Resolves when something more was asked. */
  asked(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }
  tell(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

async function start() {
  const worker = new Worker();
  const server = new Server();
  server.addService(serviceDefinition(Shard), {
    getInfo: (_call: unknown, answer: Answer<object>) =>
      answer(null, create(GetInfoResponseSchema, { workerId: "w", modelHash: "m" })),
    join(call: { write: (message: object) => void; end: () => void }) {
      call.write(create(JoinResponseSchema, { kind: { case: "ready", value: {} } }));
      call.end();
    },
    step(call: ServerDuplexStream<StepRequest, StepResponse>) {
      worker.steps = call;
      call.on("data", ({ plan }: StepRequest) => {
        worker.plans.push(plan ?? assert.fail());
        worker.tell();
      });
    },
    encode(_call: { request: EncodeRequest }, answer: Answer<object>) {
      worker.endEncode = answer;
      worker.tell();
    },
    moreCandidates: (_call: unknown, answer: Answer<object>) => answer(internal.toStatus()),
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, taken) =>
      error === null ? resolve(taken) : reject(error),
    ),
  );
  after(() => server.forceShutdown());
  const lost: ServeError[] = [];
  const group = await Group.form(
    () => ({
      placement: PLACEMENT,
      planHash: "p",
      modelHash: "m",
      joinDeadlineMs: 600_000,
      stepDeadlineMs: STEP_DEADLINE_MS,
    }),
    [{ address: `127.0.0.1:${port}`, workerId: undefined }],
    {
      above: 0n,
      onLost: (error) => lost.push(error),
      onProgress: () => undefined,
      onUnreachable: () => undefined,
    },
  );
  after(() => group.close());
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
  const answer = () =>
    worker.steps?.write(create(StepResponseSchema, { stepId: group.lastStepId }));
  const encode = group.encode(TILES, 7000);
  await worker.asked();
  const beside = group.step(PLAN);
  await worker.asked();
  answer();
  await beside;
  worker.endEncode?.(null, create(EncodeResponseSchema, { computeNs: 12_000_000n }));
  assert.equal(await encode, 12);
  const alone = group.step(PLAN);
  await worker.asked();
  answer();
  await alone;
  const deadlines = worker.plans.map((plan) => plan.deadlineMs);
  assert.deepEqual(deadlines, [STEP_DEADLINE_MS + 7000, STEP_DEADLINE_MS]);
});
