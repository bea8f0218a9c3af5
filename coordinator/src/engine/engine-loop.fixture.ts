/** The loop against ranks whose answers the test gives: what no real rank does at the very moment wanted. */
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { Progress, type ServeError } from "@tessera/proto";
import {
  LaneResultSchema,
  StepResponseSchema,
  type LaneResult,
  type StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { LoopPlan, RunningGroup } from "../cluster/group.js";
import type { RequestSink } from "./active.js";
import { CoordinatorMetrics } from "../metrics.js";
import type { Grammar } from "../request/constraint.js";
import type { ChoiceText, PreparedRequest } from "../request/types.js";
import { EngineLoop, type LoopLimits } from "./engine-loop.js";
import { preparedOf } from "./prepared.fixture.js";

/** An answer in the test's hands. */
export class Asked<T> {
  readonly promise: Promise<T>;
  give: (value: T) => void = () => undefined;
  refuse: (error: Error) => void = () => undefined;
  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.give = resolve;
      this.refuse = reject;
    });
  }
}

interface AskedEncode extends Asked<number> {
  tiles: number[];
  estimateMs: number;
}

export class ScriptedRanks implements RunningGroup {
  failure: ServeError | undefined;
  lastStepId = 0n;
  encodingMs = 0;
  readonly plans: LoopPlan[] = [];
  readonly steps: Asked<StepResponse[]>[] = [];
  readonly encodes: AskedEncode[] = [];
  readonly more: Asked<LaneResult[]>[] = [];
  readonly encoders: number[];
  encodesTogether = false;
  constructor(readonly size = 1) {
    this.encoders = Array.from({ length: size }, (_, rank) => rank);
  }

  step(plan: LoopPlan): Promise<StepResponse[]> {
    this.lastStepId++;
    this.plans.push(plan);
    const asked = new Asked<StepResponse[]>();
    this.steps.push(asked);
    return asked.promise;
  }
  encode(byRank: ReadonlyMap<number, object[]>, estimateMs: number): Promise<number> {
    const tiles = this.encoders.map((rank) => byRank.get(rank)?.length ?? 0);
    const asked = Object.assign(new Asked<number>(), { tiles, estimateMs });
    this.encodes.push(asked);
    return asked.promise;
  }
  moreCandidates(): Promise<LaneResult[]> {
    const asked = new Asked<LaneResult[]>();
    this.more.push(asked);
    return asked.promise;
  }

  /** A token for every wanted row of the latest plan; `change` is laid over its lane. */
  answer(change: Partial<LaneResult> = {}): void {
    const rows = (this.plans.at(-1)?.slices ?? []).flatMap(({ sequenceId, wanted }) =>
      wanted.map(({ row, candidates }) => ({
        sequenceId,
        row,
        lanes: [lane(candidates, change)],
      })),
    );
    this.steps.at(-1)?.give([create(StepResponseSchema, { stepId: this.lastStepId, rows })]);
  }
}

/** Many equal candidates: a filter of the top 90 % needs more than the first 256. */
export function lane(count: number, change: Partial<LaneResult> = {}): LaneResult {
  const candidate = (tokenId: number) => ({ tokenId, raw: 1, scaled: 1, noise: 0 });
  const best = candidate(5);
  const candidates = Array.from({ length: count }, (_, i) => candidate(i));
  const scaled = { max: 1, sum: 1000 };
  return Object.assign(create(LaneResultSchema, { best, candidates, scaled }), change);
}

/** Tiles of other pictures than those of other names, each with a row in the text. */
export const withTiles = (count: number, name = "picture"): Partial<PreparedRequest> => ({
  promptIds: Array.from({ length: count + 1 }, (_, i) => i),
  imageRows: Array.from({ length: count }, (_, i) => ({
    position: i,
    tile: i,
    firstRow: 0,
    count: 1,
  })),
  tiles: Array.from({ length: count }, (_, i) => ({
    sha256: `${name} ${i}`,
    pixels: new Uint8Array(3),
  })),
});

function textOf({ maxTokens }: PreparedRequest): ChoiceText {
  let tokenCount = 0;
  return {
    get tokenCount() {
      return tokenCount;
    },
    push(token) {
      tokenCount++;
      const finish = tokenCount < maxTokens ? undefined : { reason: "length" as const };
      return { text: "x", tokens: [token], finish };
    },
    end: (finish) => ({ text: "", tokens: [], finish }),
  };
}

export function setup(
  of: { limits?: Partial<LoopLimits>; prefixRoot?: (request: PreparedRequest) => string } = {},
) {
  const faults: unknown[] = [];
  const clock = { nowMs: 0 };
  const metrics = new CoordinatorMetrics({ codes: [], ranks: 2, maxModelLen: 64 });
  const loop = new EngineLoop({
    limits: {
      blockCount: 64,
      maxBatchedTokens: 64,
      maxSequences: 64,
      maxWantedRows: 64,
      maxTiles: 8,
      maxEmbeddings: 256,
      crossBlockCount: 8,
      maxStreamRows: 100,
      vocabulary: 2000,
      maxRequests: 100,
      draftTokens: 0,
      ...of.limits,
    },
    metrics,
    progress: new Progress(),
    bounds: { stepMs: 1e6, encodeMs: 1e6 },
    stepDeadlineMs: 4000,
    encodeBudgetMs: 100,
    prefixRoot: of.prefixRoot,
    createText: textOf,
    nowMs: () => clock.nowMs,
    onFault: (error) => faults.push(error),
  });
  /** What a request's stream is told, word by word. */
  const submit = (change: Partial<PreparedRequest> = {}, grammar?: Grammar) => {
    const told: string[] = [];
    const sink: RequestSink = {
      begun: () => undefined,
      promptScored: (tokens) => told.push(`scored ${tokens.length}`),
      piece: (_choice, { finish }) => told.push(finish?.reason ?? "text"),
      done: ({ completionTokens }) => told.push(`done ${completionTokens}`),
      failed: ({ code }) => told.push(code),
    };
    const active = loop.submit(preparedOf(change), sink, { weight: 1, grammar });
    return { active, told };
  };
  /** As the group does when it is lost: the loop is told before the call is rejected. */
  const lose = (ranks: ScriptedRanks, asked: Pick<Asked<unknown>, "refuse">, error: ServeError) => {
    ranks.failure = error;
    loop.detach(error);
    asked.refuse(error);
  };
  return { loop, metrics, faults, clock, submit, lose };
}

/** Several rounds of the event loop. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise(setImmediate);
}

export const last = <T>(list: T[]): T => list.at(-1) ?? assert.fail("nothing was asked");
