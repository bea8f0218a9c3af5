/** One rank: the engine with its cut, the exchange, and the epoch it serves. */
import { availableParallelism } from "node:os";
import { openEngine, type Engine, type EngineInfo, type NativeError } from "@tessera/native/engine";
import {
  ModelError,
  openModel,
  planHash,
  PROCESS_BYTES,
  rankProgram,
  type ModelFolder,
} from "@tessera/model";
import { ServeError } from "@tessera/proto";
import type { JoinRequest, Placement } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { toCut, toPlacementSpec } from "./convert.js";
import { Exchange, type ExchangePlace } from "./exchange.js";
import type { PairTransport, Sharing } from "./exchange-messages.js";
import { chooseSpinUs } from "./exchange-spin.js";
import { SHARED_DIR, type Transport } from "./transport.js";
import type { WorkerMetrics } from "./metrics.js";

/** Raised whenever what two parts of a group must agree on changes. */
export const BUILD = "tessera 0.1.0";
type Cut = ReturnType<typeof toCut>;
const CONNECT_DEADLINE_MS = 30_000;

/** What the engine's failure means to the coordinator. */
export function fromNative(error: unknown): ServeError {
  if (error instanceof ServeError) return error;
  if (error instanceof ModelError)
    return new ServeError(
      error.code === "BAD_MODEL" ? "BAD_MODEL" : "INVALID_ARGUMENT",
      error.message,
    );
  const native = error as NativeError;
  const metadata = native.rank === undefined ? {} : { rank: String(native.rank) };
  switch (native.code) {
    case "PEER_TIMEOUT":
      return new ServeError("STEP_TIMEOUT", native.message, { metadata, cause: error });
    case "PEER_LOST":
      return new ServeError("RANK_LOST", native.message, { metadata, cause: error });
    case "EPOCH_ENDED":
      return new ServeError("STALE_EPOCH", native.message, { cause: error });
    case "INVALID_ARGUMENT":
    case "BAD_MODEL":
      return new ServeError(native.code, native.message, { cause: error });
    default:
      return ServeError.from(error);
  }
}

export function placementHash(model: string, size: number, placement: Placement): string {
  const { $typeName: _type, $unknown: _unknown, ...facts } = placement;
  return planHash({ build: BUILD, backend: "cpu", model, size, ...facts });
}

export class RankState {
  private engine: Engine | undefined;
  private cut = "";
  private serving = false;
  /** The first peer that was lost in this epoch. */
  private lostPeer: ServeError | undefined;
  /** The highest seen. */
  epoch = 0n;
  /** The highest that was asked to be joined. */
  private joinedEpoch = 0n;
  /** Of the join under way. */
  private attempt: AbortController | undefined;
  /** Settles when no join works on the engine. */
  private working: Promise<void> = Promise.resolve();
  /** The last loading of weights. */
  private loading: Promise<void> = Promise.resolve();
  private closing = false;
  rank = -1;
  /** Asked for; undefined: chosen at each join. */
  exchangeSpinUs: number | undefined;
  /** Of collectives, to ranks of this machine. */
  transport: Transport = "auto";
  sharedDir = SHARED_DIR;
  /** Of the whole process; undefined: no limit. */
  memoryBytes: number | undefined;
  /** Joined once. */
  started = false;
  onReady: (ready: boolean) => void = () => undefined;
  /** How the collectives to each peer go, when a group was joined. */
  onTransports: (pairs: PairTransport[]) => void = () => undefined;

  private constructor(
    readonly model: ModelFolder,
    readonly modelHash: string,
    private readonly threads: number,
    readonly exchange: Exchange,
    private readonly metrics: WorkerMetrics,
  ) {}

  static async open(
    modelDir: string,
    threads: number,
    at: ExchangePlace,
    metrics: WorkerMetrics,
    onLost: (rank: number, reason: string) => void,
  ): Promise<RankState> {
    const model = await openModel(modelDir);
    const hash = await model.hash();
    let state: RankState | undefined = undefined;
    const exchange = await Exchange.start(at, {
      onLost(epoch, rank, reason) {
        state?.lose(epoch, rank, reason);
        onLost(rank, reason);
      },
    });
    const opened = new RankState(model, hash, threads, exchange, metrics);
    state = opened;
    return opened;
  }

  get ready(): boolean {
    return this.serving;
  }
  private setReady(ready: boolean): void {
    if (ready === this.serving) return;
    this.serving = ready;
    this.started ||= ready;
    this.onReady(ready);
  }

  private lose(epoch: bigint, rank: number, reason: string): void {
    this.engine?.endEpoch(epoch, rank);
    if (epoch !== this.epoch) return;
    const metadata = { rank: String(rank) };
    this.lostPeer ??= new ServeError("RANK_LOST", `lost by rank ${this.rank}: ${reason}`, {
      metadata,
    });
    this.setReady(false);
  }

  /** Refuses older epochs. */
  check(epoch: bigint): void {
    if (epoch === this.epoch) return;
    throw new ServeError("STALE_EPOCH", `epoch ${epoch}: this worker is at ${this.epoch}`);
  }

  /** Refuses an epoch that a lost peer has ended, naming it. */
  current(epoch: bigint): Engine {
    this.check(epoch);
    if (this.lostPeer !== undefined) throw this.lostPeer;
    if (this.engine === undefined || !this.ready)
      throw new ServeError("NOT_READY", `epoch ${epoch}: rank ${this.rank} is not ready`);
    return this.engine;
  }

  stats() {
    return this.engine?.stats() ?? { sequences: 0, embeddings: 0, streams: 0, lastStepId: 0n };
  }

  /** From now on older epochs are refused; steps in flight and joins under way fail. */
  fence(epoch: bigint): void {
    if (epoch <= this.epoch) return;
    this.engine?.endEpoch(this.epoch);
    this.exchange.leave();
    this.attempt?.abort(new ServeError("STALE_EPOCH", `epoch ${epoch} came in between`));
    this.attempt = undefined;
    this.epoch = epoch;
    this.lostPeer = undefined;
    this.setReady(false);
    this.rank = -1;
    this.metrics.rank.set(-1);
    this.metrics.sharedPeers.set(0);
  }

  /** An epoch is joined once, and none that is older than what this worker has seen. */
  async join(
    request: JoinRequest,
    onProgress: (done: number, total: number) => void,
  ): Promise<EngineInfo> {
    const { placement, rank, epoch, peers } = request;
    if (placement === undefined) throw ServeError.field("placement", "is missing");
    if (epoch < this.epoch || epoch <= this.joinedEpoch)
      throw new ServeError("STALE_EPOCH", `epoch ${epoch}: this worker is at ${this.epoch}`);
    const cut = toCut(rank, peers.length, placement);
    const own = placementHash(this.modelHash, cut.size, placement);
    if (own !== request.planHash)
      throw new ServeError(
        "PLAN_MISMATCH",
        `rank ${rank} has plan ${own.slice(0, 12)}, the coordinator has ${request.planHash.slice(0, 12)}`,
      );
    this.fence(epoch);
    this.joinedEpoch = epoch;
    const attempt = new AbortController();
    this.attempt = attempt;
    return this.alone(attempt.signal, () => this.takeRank(request, { placement, cut }, onProgress));
  }

  /** Runs `work` when no other join works on the engine. @throws the signal's reason while it waits */
  private async alone<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const before = this.working;
    let done: () => void = () => undefined;
    this.working = new Promise((resolve) => (done = resolve));
    const stale = new Promise<never>((_, reject) => {
      const leave = () => reject(signal.reason as Error);
      signal.addEventListener("abort", leave, { once: true });
    });
    try {
      await Promise.race([before, stale]);
      return await Promise.race([work(), stale]);
    } finally {
      // Who waits next waits for the engine, not for this caller.
      void Promise.allSettled([before, this.loading]).then(done);
    }
  }

  private async takeRank(
    request: JoinRequest,
    { placement, cut }: { placement: Placement; cut: Cut },
    onProgress: (done: number, total: number) => void,
  ): Promise<EngineInfo> {
    const { rank, epoch, peers, planHash } = request;
    this.check(epoch);
    const engine = await this.openCut(cut, onProgress);
    this.check(epoch);
    const cores = availableParallelism();
    const spinUs = chooseSpinUs(this.exchangeSpinUs, { peers, rank, cores });
    const info = await engine.beginEpoch(epoch, { ...toPlacementSpec(placement), spinUs });
    this.check(epoch);
    this.checkMemory(info);
    const { handle } = engine;
    const deadlineMs = CONNECT_DEADLINE_MS;
    const { size } = cut;
    const sharing = this.sharing(cores);
    const group = { epoch, rank, size, peers, planHash };
    const pairs = await this.exchange.join({ ...group, handle, deadlineMs, spinUs, sharing });
    this.check(epoch);
    this.rank = rank;
    this.metrics.sharedPeers.set(pairs.filter(({ transport }) => transport === "shm").length);
    this.onTransports(pairs);
    this.setReady(true);
    this.metrics.rank.set(rank);
    this.metrics.epoch.set(Number(epoch));
    this.metrics.epochs.inc();
    return info;
  }

  private sharing(cores: number): Sharing | undefined {
    const { transport, threads, sharedDir: dir, exchangeSpinUs: spinUs } = this;
    if (transport === "grpc") return undefined;
    return { dir, required: transport === "shm", threads, cores, spinUs };
  }

  private checkMemory(info: EngineInfo): void {
    const needed = info.weightBytes + info.cacheBytes + info.workspaceBytes + PROCESS_BYTES;
    if (this.memoryBytes === undefined || needed <= this.memoryBytes) return;
    throw new ServeError(
      "INVALID_ARGUMENT",
      `memory: weights ${info.weightBytes}, cache ${info.cacheBytes}, workspace ${info.workspaceBytes} and process ` +
        `${PROCESS_BYTES} bytes are ${needed}, limit ${this.memoryBytes}`,
    );
  }

  /** Weights stay while the cut is the same. One call at a time. */
  private async openCut(
    cut: Cut,
    onProgress: (done: number, total: number) => void,
  ): Promise<Engine> {
    const name = JSON.stringify(cut);
    if (this.engine !== undefined && this.cut === name) return this.engine;
    const opening = this.replaceEngine(cut, onProgress);
    this.loading = opening.catch(() => undefined);
    await opening;
    if (this.engine === undefined) throw new ServeError("STALE_EPOCH", "the worker is closing");
    this.cut = name;
    return this.engine;
  }

  private async replaceEngine(
    cut: Cut,
    onProgress: (done: number, total: number) => void,
  ): Promise<void> {
    const old = this.engine;
    this.engine = undefined;
    this.cut = "";
    await old?.close();
    const program = rankProgram(this.model.config, cut);
    const tensors = await this.model.tensors();
    const engine = await openEngine({ ...program, tensors, threads: this.threads }, onProgress);
    if (this.closing) await engine.close();
    else this.engine = engine;
  }

  async close(): Promise<void> {
    this.closing = true;
    this.attempt?.abort(new ServeError("STALE_EPOCH", "the worker is closing"));
    await this.exchange.close();
    await this.loading;
    await this.engine?.close();
    this.engine = undefined;
  }
}
