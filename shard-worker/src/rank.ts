/** One rank: the engine with its cut, the exchange, and the epoch it serves. */
import { availableParallelism } from "node:os";
import { openEngine, type Engine, type EngineInfo, type NativeError } from "@tessera/native/engine";
import { openModel, planHash, rankProgram, ModelError, type ModelFolder } from "@tessera/model";
import { ServeError } from "@tessera/proto";
import type { JoinRequest, Placement } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { toPlacementSpec } from "./convert.js";
import { Exchange } from "./exchange.js";
import { chooseSpinUs } from "./exchange-spin.js";
import type { WorkerMetrics } from "./metrics.js";

/** Raised whenever what two parts of a group must agree on changes. */
export const BUILD = "tessera 0.1.0";
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
  epoch = 0n;
  rank = -1;
  /** Asked for; undefined: chosen at each join. */
  exchangeSpinUs: number | undefined;
  /** Joined once. */
  started = false;
  onReady: (ready: boolean) => void = () => undefined;

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
    host: string,
    metrics: WorkerMetrics,
    onLost: (rank: number, reason: string) => void,
  ): Promise<RankState> {
    const model = await openModel(modelDir);
    const hash = await model.hash();
    let state: RankState | undefined = undefined;
    const exchange = await Exchange.start(host, {
      onLost(epoch, rank, reason) {
        state?.lose(epoch, rank);
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

  private lose(epoch: bigint, rank: number): void {
    this.engine?.endEpoch(epoch, rank);
    if (epoch === this.epoch) this.setReady(false);
  }

  /** Refuses older epochs. */
  check(epoch: bigint): void {
    if (epoch === this.epoch) return;
    throw new ServeError("STALE_EPOCH", `epoch ${epoch}: this worker is at ${this.epoch}`);
  }

  current(epoch: bigint): Engine {
    this.check(epoch);
    if (this.engine === undefined || !this.ready)
      throw new ServeError("NOT_READY", `epoch ${epoch}: rank ${this.rank} is not ready`);
    return this.engine;
  }

  stats() {
    return this.engine?.stats() ?? { sequences: 0, embeddings: 0, lastStepId: 0n };
  }

  /** From now on older epochs are refused; steps in flight fail. */
  fence(epoch: bigint): void {
    if (epoch <= this.epoch) return;
    this.engine?.endEpoch(this.epoch);
    this.exchange.leave();
    this.epoch = epoch;
    this.setReady(false);
    this.rank = -1;
    this.metrics.rank.set(-1);
  }

  async join(
    request: JoinRequest,
    onProgress: (done: number, total: number) => void,
  ): Promise<EngineInfo> {
    const { placement, rank, epoch, peers } = request;
    if (placement === undefined) throw ServeError.field("placement", "is missing");
    if (epoch <= this.epoch && this.ready)
      throw new ServeError("STALE_EPOCH", `epoch ${epoch}: this worker is at ${this.epoch}`);
    const own = placementHash(this.modelHash, peers.length, placement);
    if (own !== request.planHash)
      throw new ServeError(
        "PLAN_MISMATCH",
        `rank ${rank} has plan ${own.slice(0, 12)}, the coordinator has ${request.planHash.slice(0, 12)}`,
      );
    this.fence(epoch);
    this.epoch = epoch;
    const engine = await this.openCut(rank, peers.length, onProgress);
    const cores = availableParallelism();
    const spinUs = chooseSpinUs(this.exchangeSpinUs, { peers, rank, cores });
    const info = await engine.beginEpoch(epoch, { ...toPlacementSpec(placement), spinUs });
    await this.exchange.join({
      epoch,
      rank,
      peers,
      planHash: request.planHash,
      handle: engine.handle,
      deadlineMs: CONNECT_DEADLINE_MS,
      spinUs,
    });
    this.check(epoch);
    this.rank = rank;
    this.setReady(true);
    this.metrics.rank.set(rank);
    this.metrics.epoch.set(Number(epoch));
    this.metrics.epochs.inc();
    return info;
  }

  /** Weights stay while rank and size are the same. */
  private async openCut(
    rank: number,
    size: number,
    onProgress: (done: number, total: number) => void,
  ): Promise<Engine> {
    const cut = `${rank}/${size}`;
    if (this.engine !== undefined && this.cut === cut) return this.engine;
    await this.engine?.close();
    this.engine = undefined;
    const program = rankProgram(this.model.config, { rank, size });
    const tensors = await this.model.tensors();
    this.engine = await openEngine({ ...program, tensors, threads: this.threads }, onProgress);
    this.cut = cut;
    return this.engine;
  }

  async close(): Promise<void> {
    await this.exchange.close();
    await this.engine?.close();
    this.engine = undefined;
  }
}
