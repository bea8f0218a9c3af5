/** What serves: the model, the group that is formed again whenever it is lost, the loop, and admission. */
import { randomUUID } from "node:crypto";
import { openModel, type ModelFolder, type PlacementPlan } from "@tessera/model";
import { GRPC_STATUS, Progress, ServeError, type ServeErrorCode } from "@tessera/proto";
import type { GenerateRequest } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Logger } from "pino";
import { Group, type GroupSettings, type WorkerFacts } from "../cluster/group.js";
import type { Membership } from "../cluster/membership.js";
import { openMembership } from "../cluster/open-membership.js";
import { CoordinatorMetrics } from "../metrics.js";
import {
  checkRequest,
  createChoiceText,
  loadTokenizer,
  prepareRequest,
  type CheckedRequest,
  type PrepareContext,
  type PreparedRequest,
  type Tokenizer,
} from "../request/index.js";
import type { Caller } from "../access/caller.js";
import type { ActiveRequest, RequestEvents } from "./active.js";
import { Admission, type Admitted } from "./admission.js";
import { ENCODE_BUDGET_MS } from "./encode-pace.js";
import { EngineLoop } from "./engine-loop.js";
import type { CheckedOptions, CoordinatorOptions } from "./options.js";
import {
  BUILD,
  contextOf,
  JOIN_DEADLINE_MS,
  loopLimitsOf,
  plansOf,
  settingsOf,
  choosePlan,
} from "./parts.js";

export { BUILD };
const RETRY_MS = 250;
/** Beyond a step's or an encode's own deadline: without its end by then the process is stuck. */
const STUCK_GRACE_MS = 10_000;
/** Pixels of tiles of all requests: 3,500 tiles of 448 × 448. */
const MAX_TILE_BYTES = 2 * 2 ** 30;
/** As many as Node's thread pool has threads. */
const MAX_PREPARING = 4;

interface Chosen {
  plan: PlacementPlan;
  settings: GroupSettings;
}

export type ServingState = "forming" | "ready" | "draining" | "lost";

const FINAL: ReadonlySet<ServeErrorCode> = new Set(["BAD_MODEL", "PLAN_MISMATCH"]);

export interface Asked {
  message: GenerateRequest;
  caller: Caller;
  signal: AbortSignal;
}

export class Serving {
  private readonly admission: Admission;
  group: Group | undefined;
  state: ServingState = "forming";
  /** Of the last group that stood; the first choice before. */
  private chosen: Chosen;
  onState: (state: ServingState) => void = () => undefined;
  private closing = false;
  private epoch = 0n;

  private constructor(
    readonly model: ModelFolder,
    private readonly choices: [Chosen, ...Chosen[]],
    readonly context: PrepareContext,
    readonly loop: EngineLoop,
    readonly metrics: CoordinatorMetrics,
    private readonly progress: Progress,
    private readonly options: CheckedOptions,
    private readonly membership: Membership,
    private readonly log: Logger,
  ) {
    this.chosen = choices[0];
    this.admission = new Admission({
      maxRequests: options.maxRequests,
      maxTileBytes: MAX_TILE_BYTES,
      maxPreparing: MAX_PREPARING,
    });
  }

  static async open(options: CheckedOptions, log: Logger): Promise<Serving> {
    const model = await openModel(options.modelDir);
    model.checkStopTokens();
    const tokenizer = await loadTokenizer(model.dir);
    const plans = plansOf(model, options);
    const [plan] = plans;
    const context = contextOf(model, tokenizer, plan, options);
    const metrics = new CoordinatorMetrics({
      codes: Object.keys(GRPC_STATUS),
      ranks: plan.ranks.length,
      maxModelLen: plan.maxModelLen,
    });
    metrics.cacheBlocks.set(plan.blockCount);
    const progress = new Progress();
    const loop = Serving.loopOf({ model, plan, options, metrics, progress, tokenizer, log });
    const modelHash = await model.hash();
    const chosen = (of: PlacementPlan): Chosen => ({
      plan: of,
      settings: settingsOf(options, modelHash, of, context.selectableIds),
    });
    const [first, ...others] = plans;
    const choices: [Chosen, ...Chosen[]] = [chosen(first), ...others.map(chosen)];
    // A cancel cannot come before the request it ends.
    let cancel: (requestId: string, tenant: string) => void = () => undefined;
    const membership = await openMembership(options, {
      modelHash,
      build: BUILD,
      log,
      onCancel: (requestId, tenant) => cancel(requestId, tenant),
    });
    const parts = [
      model,
      choices,
      context,
      loop,
      metrics,
      progress,
      options,
      membership,
      log,
    ] as const;
    const serving = new Serving(...parts);
    cancel = (requestId, tenant) => serving.cancelled(requestId, tenant);
    return serving;
  }

  private static loopOf(from: {
    model: ModelFolder;
    plan: PlacementPlan;
    options: CoordinatorOptions;
    metrics: CoordinatorMetrics;
    progress: Progress;
    tokenizer: Tokenizer;
    log: Logger;
  }): EngineLoop {
    const { model, plan, options, metrics, progress, tokenizer, log } = from;
    return new EngineLoop({
      limits: loopLimitsOf(model, plan, options),
      metrics,
      progress,
      bounds: {
        stepMs: options.stepDeadlineMs + STUCK_GRACE_MS,
        encodeMs: JOIN_DEADLINE_MS + STUCK_GRACE_MS,
      },
      createText: (request) => createChoiceText(request, tokenizer),
      nowMs: () => performance.now(),
      stepDeadlineMs: options.stepDeadlineMs,
      encodeBudgetMs: options.encodeBudgetMs ?? ENCODE_BUDGET_MS,
      onFault(error) {
        log.fatal({ err: error }, "a fault of the coordinator itself: the process ends");
        // As an uncaught exception, whatever awaits the loop.
        setImmediate(() => {
          throw error;
        });
      },
    });
  }

  /** Said on NATS to all coordinators of the group: a request that does not run here is another's. */
  private cancelled(requestId: string, tenant: string): void {
    const place = this.admission.get({ id: requestId, tenant });
    if (place !== undefined) this.end(place);
  }

  get plan(): PlacementPlan {
    return this.chosen.plan;
  }
  get settings(): GroupSettings {
    return this.chosen.settings;
  }

  private setState(state: ServingState): void {
    if (this.state === "draining" && state !== "draining") return;
    this.state = state;
    this.metrics.ready.set(state === "ready" ? 1 : 0);
    this.onState(state);
  }

  /**
   * Forms the group, again and again until it stands; then after every loss, but for one while draining.
   * @throws ServeError BAD_MODEL, PLAN_MISMATCH when no group of a fixed list ever stood: trying again does not help.
   */
  async keepFormed(): Promise<void> {
    let said = "";
    while (!this.closing && this.group === undefined && this.state !== "draining") {
      try {
        await this.form();
      } catch (error) {
        const { code, message } = ServeError.from(error);
        if (this.membership.fixed && this.epoch === 0n && FINAL.has(code)) throw error;
        if (message !== said) this.log.warn({ why: message }, "the group is not formed");
        said = message;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  private async form(): Promise<void> {
    const { membership } = this;
    const composition = membership.compose();
    if (composition.kind === "short") throw new ServeError("NOT_READY", composition.why);
    const { members, aboveEpoch } = composition;
    const choose = (workers: WorkerFacts[]) => choosePlan(this.choices, workers).settings;
    const group = await Group.form(choose, members, {
      above: aboveEpoch > this.epoch ? aboveEpoch : this.epoch,
      tls: this.options.security.peers,
      onLost: (error) => this.lost(error),
      onProgress: (rank, part) => this.log.debug({ rank, part }, "loading"),
      onUnreachable(rank, gone) {
        const member = members[rank];
        if (member !== undefined) membership.unreachable(rank, member, gone);
      },
    });
    if (this.closing) return group.close();
    if (this.epoch > 0n) this.metrics.failovers.inc();
    this.group = group;
    this.epoch = group.epoch;
    this.metrics.epochs.inc();
    this.metrics.epoch.set(Number(group.epoch));
    this.loop.attach(group);
    membership.formed(group);
    this.chosen = this.choices.find(({ settings }) => settings === group.settings) ?? this.chosen;
    const { vision } = this.plan;
    this.log.info({ epoch: String(group.epoch), vision }, "group formed");
    this.setState("ready");
  }

  private lost(error: ServeError): void {
    const { group } = this;
    if (group === undefined || this.closing) return;
    this.log.error({ why: error.message }, "epoch ended");
    this.group = undefined;
    this.membership.lost(error);
    this.setState("lost");
    this.metrics.lost.inc(this.loop.requestCount);
    this.loop.detach(error);
    group.close();
    void this.keepFormed();
  }

  /** Takes an admission slot, prepares, submits. The id is free again when the sink is done or failed. */
  async run(
    { message, caller, signal }: Asked,
    eventsOf: (prepared: PreparedRequest) => RequestEvents,
  ): Promise<void> {
    if (this.state === "draining") throw new ServeError("DRAINING", "the server is draining");
    if (this.group === undefined)
      throw new ServeError("NOT_READY", "no group of workers is formed", { retryDelayMs: 1000 });
    const checked = checkRequest(message, this.context);
    const requestId = checked.requestId ?? `req-${randomUUID()}`;
    const of = { id: requestId, tenant: caller.tenant, signal };
    const place = this.admission.enter(of, this.mostTileBytes(checked));
    try {
      const prepared = await this.prepare(checked, place);
      await this.serve(prepared, eventsOf(prepared), place);
    } finally {
      this.admission.leave(place);
    }
  }

  private get tileBytes(): number {
    return 3 * this.context.tile.size ** 2;
  }

  /** What the pictures of a request can become. */
  private mostTileBytes({ images }: CheckedRequest): number {
    return images.reduce((sum, image) => sum + (image.maxTiles + 1) * this.tileBytes, 0);
  }

  private async prepare(checked: CheckedRequest, place: Admitted): Promise<PreparedRequest> {
    const identity = { requestId: place.id, tenant: place.tenant };
    const prepared = await this.admission.prepare(place, () =>
      prepareRequest(checked, identity, this.context, place.signal),
    );
    place.signal.throwIfAborted();
    this.admission.settle(place, prepared.tiles.length * this.tileBytes);
    return prepared;
  }

  private serve(prepared: PreparedRequest, sink: RequestEvents, place: Admitted): Promise<void> {
    const { metrics } = this;
    metrics.requests.inc();
    metrics.promptTokens.inc(prepared.promptIds.length);
    metrics.requestPromptTokens.observe(prepared.promptIds.length);
    metrics.tiles.inc(prepared.tileCount);
    metrics.tilesReused.inc(prepared.tileCount - prepared.tiles.length);
    return new Promise((resolve, reject) => {
      const active = this.loop.submit(prepared, {
        piece(choice, piece) {
          if (piece.finish !== undefined)
            metrics.finished.inc({ finished_reason: piece.finish.reason });
          sink.piece(choice, piece);
        },
        done(timings) {
          metrics.requestSeconds.observe(timings.totalMs / 1e3);
          metrics.queueSeconds.observe(timings.queueMs / 1e3);
          metrics.requestGenerationTokens.observe(timings.completionTokens);
          if (prepared.tileCount > 0) metrics.requestEncodeSeconds.observe(timings.encodeMs / 1e3);
          sink.done(timings);
          resolve();
        },
        failed(error) {
          sink.failed(error);
          reject(error);
        },
      });
      place.active = active;
      sink.started();
      const stop = () => this.stopped(place, active);
      if (place.signal.aborted) stop();
      else place.signal.addEventListener("abort", stop, { once: true });
    });
  }

  /** The call of a running request ended before its answer: the client left, or does not read. */
  private stopped(place: Admitted, active: ActiveRequest): void {
    const reason: unknown = place.signal.reason;
    const slow = reason instanceof ServeError && reason.code === "SLOW_READER";
    if (slow) this.loop.fail(active, reason);
    else this.end(place);
  }

  /** Takes an admission slot too: pictures are decoded. */
  async count(
    message: GenerateRequest,
    caller: Caller,
    signal: AbortSignal,
  ): Promise<PreparedRequest> {
    const checked = checkRequest(message, this.context);
    const of = { id: `count-${randomUUID()}`, tenant: caller.tenant, signal };
    const place = this.admission.enter(of, this.mostTileBytes(checked));
    try {
      return await this.prepare(checked, place);
    } finally {
      this.admission.leave(place);
    }
  }

  /** Ends a request from outside, whether it runs or is being prepared. */
  private end(place: Admitted): void {
    if (place.active === undefined)
      place.abort(new ServeError("ABORTED", "the request was aborted"));
    else this.loop.cancel(place.active, { reason: "aborted" });
  }

  /** @throws ServeError REQUEST_NOT_FOUND when the caller's tenant runs none of this id */
  abort(requestId: string, { tenant }: Caller): void {
    const place = this.admission.get({ id: requestId, tenant });
    if (place === undefined)
      throw ServeError.field(
        "request_id",
        `${JSON.stringify(requestId)} is not running`,
        "REQUEST_NOT_FOUND",
      );
    this.end(place);
  }

  /** Takes nothing new; waits for what runs. Returns how many were ended at the deadline. */
  async drain(deadlineMs: number): Promise<number> {
    this.setState("draining");
    const end = performance.now() + deadlineMs;
    while (this.admission.size > 0 && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 20));
    const left = this.admission.all();
    for (const place of left) this.end(place);
    return left.length;
  }

  refreshMetrics(): void {
    const load = this.loop.load();
    this.metrics.running.set(load.runningSequences);
    this.metrics.waiting.set(load.waitingRequests);
    this.metrics.cacheUsage.set(load.usedBlocks / this.plan.blockCount);
    this.metrics.embeddings.set({ state: "held" }, load.embeddings);
    this.metrics.embeddings.set({ state: "idle" }, load.idleEmbeddings);
    this.metrics.crossBlocks.set({ state: "held" }, load.usedCrossBlocks);
    this.metrics.crossBlocks.set({ state: "idle" }, load.idleCrossBlocks);
    const free = this.plan.crossBlockCount - load.usedCrossBlocks - load.idleCrossBlocks;
    this.metrics.crossBlocks.set({ state: "free" }, free);
    this.metrics.resident.set(process.memoryUsage.rss());
    this.group?.ranks.forEach((rank, i) =>
      this.metrics.heartbeatAge.set(
        { rank: String(i) },
        (performance.now() - rank.heardAtMs) / 1e3,
      ),
    );
  }

  /** A group stood once. */
  get started(): boolean {
    return this.epoch > 0n;
  }

  /** Forward progress: steps and encodes end in time, and requests do not lie about without one. */
  live(): boolean {
    if (!this.progress.moving) return false;
    if (this.progress.busy || this.group === undefined || this.loop.requestCount === 0) return true;
    return performance.now() - this.loop.lastTurnMs < this.options.stepDeadlineMs;
  }

  async close(): Promise<void> {
    this.closing = true;
    this.group?.close();
    this.loop.detach(new ServeError("DRAINING", "the server stops"));
    await this.membership.close();
  }
}
