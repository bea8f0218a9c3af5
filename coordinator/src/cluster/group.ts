/**
 * The ranks that together hold the model, under one epoch. A lost rank or a late step ends the epoch; the group forms
 * again under the next one.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import type { ServiceError } from "@grpc/grpc-js";
import { ServeError, type PeerTls } from "@tessera/proto";
import {
  StepRequestSchema,
  VisionPlacement,
  type GetInfoResponse,
  type JoinReady,
  type LaneResult,
  type Placement,
  type StepPlan,
  type StepResponse,
  type Tile,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { Member } from "./membership.js";
import { fromCall, ShardClient, type StepStream } from "./shard-client.js";

export interface GroupSettings {
  placement: Omit<Placement, "$typeName">;
  /** Of the coordinator's own view of the plan. */
  planHash: string;
  modelHash: string;
  joinDeadlineMs: number;
  stepDeadlineMs: number;
}

/** What settings are chosen by. */
export interface WorkerFacts {
  /** host:port */
  address: string;
  /** Of its machine, or its limit. */
  memoryBytes: number;
}

export interface RankInfo extends JoinReady {
  info: GetInfoResponse;
  address: string;
  /** Last sign of life, by this process's monotonic clock. */
  heardAtMs: number;
}

export interface FormOptions {
  /** The new epoch is above this one, and above all that the workers saw. */
  above: bigint;
  /** Called once, when the epoch ends by itself. */
  onLost: (error: ServeError) => void;
  onProgress: (rank: number, part: number) => void;
  /** The rank's address did not answer, or (`gone`) another process answers there. */
  onUnreachable: (rank: number, gone: boolean) => void;
  /** Of the connections to workers; absent: plain text. */
  tls?: PeerTls | undefined;
}

/** What the loop says of a step; the rest is the group's. */
export type LoopPlan = Omit<StepPlan, "$typeName" | "epoch" | "stepId" | "deadlineMs">;

/** What the loop needs of a group. */
export type RunningGroup = Pick<
  Group,
  | "size"
  | "failure"
  | "lastStepId"
  | "encodingMs"
  | "encoders"
  | "encodesTogether"
  | "step"
  | "encode"
  | "moreCandidates"
>;

interface Pending {
  stepId: bigint;
  answers: (StepResponse | undefined)[];
  resolve: (answers: StepResponse[]) => void;
  reject: (error: ServeError) => void;
  deadlineMs: number;
  timer: NodeJS.Timeout;
}

const PROBE_DEADLINE_MS = 2000;
/** Beyond the workers' own deadline, so that a rank can name the one it waits for. */
const GRACE_MS = 1500;

export class Group {
  private pending: Pending | undefined;
  private ended: ServeError | undefined;
  private nextStep = 1n;
  private nextEncode = 1n;
  /** What the tiles given out and not answered are taken to need. */
  encodingMs = 0;
  steps = 0;

  private constructor(
    readonly epoch: bigint,
    readonly ranks: RankInfo[],
    private readonly clients: ShardClient[],
    private readonly streams: StepStream[],
    readonly settings: GroupSettings,
    private readonly onLost: (error: ServeError) => void,
  ) {
    streams.forEach((stream, rank) => {
      stream.on("data", (response: StepResponse) => this.take(rank, response));
      stream.on("error", (error: ServiceError) =>
        this.lose(fromCall(error, rank, this.addressOf(rank))),
      );
      stream.on("end", () =>
        this.lose(
          new ServeError(
            "RANK_LOST",
            `rank ${rank} (${this.addressOf(rank)}): its step stream ended`,
            { metadata: { rank: String(rank) } },
          ),
        ),
      );
    });
  }

  /** One attempt with these members, by rank. `choose`: settings for the workers that are there. */
  static async form(
    choose: (workers: WorkerFacts[]) => GroupSettings,
    members: Member[],
    options: FormOptions,
  ): Promise<Group> {
    const clients = members.map(({ address }, rank) => new ShardClient(address, rank, options.tls));
    try {
      const infos = await probe(clients, members, options.onUnreachable);
      const settings = choose(
        infos.map(({ memoryBytes }, rank) => ({
          address: members[rank]?.address ?? "",
          memoryBytes: Number(memoryBytes),
        })),
      );
      checkModels(infos, members, settings.modelHash);
      const epoch =
        infos.reduce((most, info) => (info.epoch > most ? info.epoch : most), options.above) + 1n;
      const peers = infos.map((info) => info.exchangeAddress);
      const { placement, planHash, joinDeadlineMs } = settings;
      const ready = await Promise.all(
        clients.map((client, rank) =>
          client.join(
            {
              epoch,
              rank,
              peers,
              planHash,
              placement: { $typeName: "tessera.shard.v1.Placement", ...placement },
            },
            {
              deadlineMs: joinDeadlineMs,
              onProgress: (done, total) => options.onProgress(rank, done / total),
            },
          ),
        ),
      );
      const ranks = ready.map((rank, i) => ({
        ...rank,
        info: infos[i] as GetInfoResponse,
        address: members[i]?.address ?? "",
        heardAtMs: performance.now(),
      }));
      const streams = clients.map((client) => client.openSteps());
      return new Group(epoch, ranks, clients, streams, settings, options.onLost);
    } catch (error) {
      for (const client of clients) client.close();
      throw ServeError.from(error);
    }
  }

  /** Ranks that hold the decoder; those from here on only encode tiles. */
  get size(): number {
    return this.clients.length - this.settings.placement.encoderCount;
  }
  /** Ranks that tiles are given to. */
  get encoders(): readonly number[] {
    const ranks = this.clients.map((_, rank) => rank);
    const apart = this.settings.placement.vision === VisionPlacement.WORKERS;
    return apart ? ranks.slice(this.size) : ranks;
  }
  /** Every encoder gets every tile, and computes its part of it together with the others. */
  get encodesTogether(): boolean {
    return this.size > 1 && this.settings.placement.vision === VisionPlacement.TENSOR;
  }
  /** Those whose answers a step waits for. */
  private get decoders(): ShardClient[] {
    return this.clients.slice(0, this.size);
  }
  /** What ended the epoch; every call since then is rejected with it. */
  get failure(): ServeError | undefined {
    return this.ended;
  }

  private addressOf(rank: number): string {
    return this.ranks[rank]?.address ?? "";
  }

  /** Ends the epoch because of what is known of a rank by other ways than its stream. */
  expel(rank: number, reason: string): void {
    const message = `rank ${rank} (${this.addressOf(rank)}): ${reason}`;
    this.lose(new ServeError("RANK_LOST", message, { metadata: { rank: String(rank) } }));
  }

  private heard(rank: number): void {
    const info = this.ranks[rank];
    if (info !== undefined) info.heardAtMs = performance.now();
  }

  private take(rank: number, response: StepResponse): void {
    this.heard(rank);
    const { pending } = this;
    if (pending === undefined || response.stepId !== pending.stepId) return;
    pending.answers[rank] = response;
    const answers = pending.answers.filter((answer) => answer !== undefined);
    if (answers.length !== this.size) return;
    clearTimeout(pending.timer);
    this.pending = undefined;
    this.steps++;
    pending.resolve(answers);
  }

  private lose(error: ServeError): void {
    if (this.ended !== undefined) return;
    this.end(error);
    this.onLost(error);
  }

  private end(error: ServeError): void {
    this.ended = error;
    const { pending } = this;
    this.pending = undefined;
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    pending.reject(error);
  }

  /** A call whose failure, of whatever kind, ends the epoch. @throws ServeError `failure` */
  private async orLose<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.lose(ServeError.from(error));
      throw this.ended ?? error;
    }
  }

  private late(pending: Pending): void {
    const rank = pending.answers.findIndex((answer) => answer === undefined);
    const message = `rank ${rank} (${this.addressOf(rank)}): step ${pending.stepId} took more than ${pending.deadlineMs} ms`;
    this.lose(new ServeError("STEP_TIMEOUT", message, { metadata: { rank: String(rank) } }));
  }

  /** A rank does one job at a time: what it encodes comes before the step. */
  private get stepDeadlineMs(): number {
    return this.settings.stepDeadlineMs + this.encodingMs;
  }

  /** Sends the same bytes to every rank; answers by rank. One step at a time. */
  step(plan: LoopPlan): Promise<StepResponse[]> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    const stepId = this.nextStep++;
    const deadlineMs = this.stepDeadlineMs;
    const message = create(StepRequestSchema, {
      plan: { ...plan, epoch: this.epoch, stepId, deadlineMs },
    });
    const bytes = toBinary(StepRequestSchema, message);
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        stepId,
        answers: this.decoders.map(() => undefined),
        resolve,
        reject,
        deadlineMs,
        timer: setTimeout(() => this.late(pending), deadlineMs + GRACE_MS),
      };
      this.pending = pending;
      for (const stream of this.streams.slice(0, this.size)) stream.write(bytes);
    });
  }

  get lastStepId(): bigint {
    return this.nextStep - 1n;
  }

  /**
   * Tiles by rank; resolves when every rank has encoded and sent its own. `estimateMs`, what a rank is taken to need,
   * is added to the deadlines of steps meanwhile. One encode at a time. → milliseconds a rank computed, the most of
   * all. @throws ServeError `failure`: the epoch has ended
   */
  encode(
    byRank: ReadonlyMap<number, Omit<Tile, "$typeName">[]>,
    estimateMs: number,
  ): Promise<number> {
    const encodeId = this.nextEncode++;
    this.encodingMs = Math.min(estimateMs, this.settings.joinDeadlineMs);
    return this.orLose(async () => {
      const times = await Promise.all(
        [...byRank].map(async ([rank, tiles]) => {
          const answer = await this.clients[rank]?.encode({
            epoch: this.epoch,
            encodeId,
            tiles: tiles.map((tile) => ({ $typeName: "tessera.shard.v1.Tile", ...tile })),
            deadlineMs: this.settings.joinDeadlineMs,
          });
          this.heard(rank);
          return answer?.computeNs ?? 0n;
        }),
      );
      this.encodingMs = 0;
      return Math.max(...times.map(Number)) / 1e6;
    });
  }

  /** All lanes of a row of a finished step, with more candidates each. @throws ServeError `failure` */
  async moreCandidates(query: {
    stepId: bigint;
    sequenceId: bigint;
    row: number;
    count: number;
  }): Promise<LaneResult[]> {
    const answers = await this.orLose(() =>
      Promise.all(
        this.decoders.map((client) =>
          client.moreCandidates({ epoch: this.epoch, ...query }, this.stepDeadlineMs),
        ),
      ),
    );
    return answers.flatMap((answer) => answer.row?.lanes ?? []).sort((a, b) => a.lane - b.lane);
  }

  /** Ends the epoch from here; a step under way is rejected. */
  close(): void {
    if (this.ended === undefined)
      this.end(new ServeError("NOT_READY", `epoch ${this.epoch} has ended`));
    for (const stream of this.streams) stream.cancel();
    for (const client of this.clients) client.close();
  }
}

/** What every member is. @throws ServeError RANK_LOST, STEP_TIMEOUT */
function probe(
  clients: ShardClient[],
  members: Member[],
  onUnreachable: FormOptions["onUnreachable"],
): Promise<GetInfoResponse[]> {
  return Promise.all(
    clients.map(async (client, rank) => {
      const info = await client.getInfo(PROBE_DEADLINE_MS).catch((error: unknown) => {
        onUnreachable(rank, false);
        throw error;
      });
      const expected = members[rank]?.workerId;
      if (expected === undefined || info.workerId === expected) return info;
      onUnreachable(rank, true);
      throw new ServeError(
        "RANK_LOST",
        `rank ${rank} (${client.address}): is worker ${info.workerId}, the lease is of worker ${expected}`,
      );
    }),
  );
}

function checkModels(infos: GetInfoResponse[], members: Member[], modelHash: string): void {
  infos.forEach((info, rank) => {
    if (info.modelHash === modelHash) return;
    const [theirs, ours] = [info.modelHash, modelHash].map((hash) => hash.slice(0, 12));
    throw new ServeError(
      "PLAN_MISMATCH",
      `rank ${rank} (${members[rank]?.address}) has model ${theirs}, the coordinator ${ours}`,
    );
  });
}
