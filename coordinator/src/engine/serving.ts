/** What serves: the model, the group that is formed again whenever it is lost, the loop, and admission. */
import assert from "node:assert/strict";
import { BLOCK_TOKENS, openModel, type ModelFolder, type PlacementPlan } from "@tessera/model";
import { GRPC_STATUS, Progress, ServeError, type ServeErrorCode } from "@tessera/proto";
import type { Logger } from "pino";
import { Group, type GroupSettings, type LoopPlan, type WorkerFacts } from "../cluster/group.js";
import type { Membership } from "../cluster/membership.js";
import { openMembership } from "../cluster/open-membership.js";
import { GrammarEngine, vocabularyOf } from "../grammar/index.js";
import { CoordinatorMetrics } from "../metrics.js";
import { EventLoopLag } from "../metrics/event-loop-lag.js";
import {
  createChoiceText,
  loadTokenizer,
  type PrepareContext,
  type TextQueue,
  type Tokenizer,
} from "../request/index.js";
import { openTracing } from "../trace/open.js";
import type { Tracing } from "../trace/trace.js";
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
import { rootKey } from "./prefix.js";
import { Requests } from "./requests.js";
import { warmUp } from "./warm-up.js";

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

/** Prompts of the longest kind that may wait; by default. */
const QUEUED_CONTEXTS = 64;
const SWEEP_MS = 10_000;
/** Of a structural tag made of a request's tools; what a user writes has its own limits. */
const GRAMMAR_BYTES = 256 << 10;

function endProcess(log: Logger, error: unknown): void {
  log.fatal({ err: error }, "a fault of the coordinator itself: the process ends");
  // As an uncaught exception, whatever awaits the loop.
  setImmediate(() => {
    throw error;
  });
}

export type ServingState = "forming" | "ready" | "draining" | "lost";

const FINAL: ReadonlySet<ServeErrorCode> = new Set(["BAD_MODEL", "PLAN_MISMATCH", "CONFIGURATION"]);

export class Serving {
  readonly requests: Requests;
  private readonly lag = new EventLoopLag();
  private readonly grammars: GrammarEngine;
  private readonly sweep: NodeJS.Timeout;
  group: Group | undefined;
  state: ServingState = "forming";
  /** Of the last group that stood; the first choice before. */
  private chosen: Chosen;
  onState: (state: ServingState) => void = () => undefined;
  private closing = false;
  private tuned = false;
  private epoch = 0n;

  private constructor(
    readonly model: ModelFolder,
    private readonly choices: [Chosen, ...Chosen[]],
    readonly context: PrepareContext & { texts: TextQueue },
    readonly loop: EngineLoop,
    readonly metrics: CoordinatorMetrics,
    private readonly progress: Progress,
    private readonly options: CheckedOptions,
    private readonly membership: Membership,
    private readonly log: Logger,
    readonly tracing: Tracing,
  ) {
    this.chosen = choices[0];
    const { tokenizer, selectableIds, stopTokenIds } = context;
    this.grammars = GrammarEngine.open({
      vocabulary: vocabularyOf(tokenizer),
      selectableIds,
      stopTokenIds,
      limits: { sourceBytes: GRAMMAR_BYTES },
    });
    const { maxRequests, maxQueuedTokens } = options;
    this.requests = new Requests({
      context,
      loop,
      metrics,
      log,
      grammars: this.grammars,
      limits: {
        maxRequests,
        maxQueuedTokens: maxQueuedTokens ?? QUEUED_CONTEXTS * context.maxModelLen,
        maxTileBytes: MAX_TILE_BYTES,
        maxPreparing: MAX_PREPARING,
      },
      checkOpen: () => this.checkOpen(),
    });
    this.sweep = setInterval(() => this.audit(), SWEEP_MS).unref();
  }

  /** Nothing is held for requests that are gone; a broken invariant ends the process. */
  private audit(): void {
    try {
      this.loop.audit();
      this.requests.audit();
      assert(this.loop.requestCount <= this.requests.size, "requests run that have no place");
    } catch (error) {
      endProcess(this.log, error);
    }
  }

  private checkOpen(): void {
    if (this.state === "draining") throw new ServeError("DRAINING", "the server is draining");
    if (this.group === undefined)
      throw new ServeError("NOT_READY", "no group of workers is formed", { retryDelayMs: 1000 });
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
    metrics.cacheConfig.set(
      {
        block_size: BLOCK_TOKENS,
        num_gpu_blocks: plan.blockCount,
        cache_dtype: options.kvType,
        // As Python writes it: vLLM's dashboards read it so.
        enable_prefix_caching: options.prefixCache === false ? "False" : "True",
      },
      1,
    );
    const progress = new Progress();
    const modelHash = await model.hash();
    const from = { model, modelHash, plan, options, metrics, progress, tokenizer, log };
    const loop = Serving.loopOf(from);
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
      await Serving.tracingOf(options, context, metrics),
    ] as const;
    const serving = new Serving(...parts);
    cancel = (requestId, tenant) => serving.cancelled(requestId, tenant);
    return serving;
  }

  private static tracingOf(
    { otlpEndpoint }: CoordinatorOptions,
    { servedName }: PrepareContext,
    { spans }: CoordinatorMetrics,
  ): Promise<Tracing> {
    const [name = "", version = ""] = BUILD.split(" ");
    return openTracing({
      endpoint: otlpEndpoint,
      service: { name, version },
      model: servedName,
      count: (fate, count) => spans.inc({ fate }, count),
    });
  }

  private static loopOf(from: {
    model: ModelFolder;
    modelHash: string;
    plan: PlacementPlan;
    options: CoordinatorOptions;
    metrics: CoordinatorMetrics;
    progress: Progress;
    tokenizer: Tokenizer;
    log: Logger;
  }): EngineLoop {
    const { model, modelHash, plan, options, metrics, progress, tokenizer, log } = from;
    const { prefixCache = true } = options;
    return new EngineLoop({
      limits: loopLimitsOf(model, plan, options),
      metrics,
      progress,
      bounds: {
        stepMs: options.stepDeadlineMs + STUCK_GRACE_MS,
        encodeMs: JOIN_DEADLINE_MS + STUCK_GRACE_MS,
      },
      prefixRoot: prefixCache
        ? ({ tenant, cacheSalt }) => rootKey({ model: modelHash, tenant, cacheSalt })
        : undefined,
      createText: (request) => createChoiceText(request, tokenizer),
      nowMs: () => performance.now(),
      stepDeadlineMs: options.stepDeadlineMs,
      encodeBudgetMs: options.encodeBudgetMs ?? ENCODE_BUDGET_MS,
      onFault: (error) => endProcess(log, error),
    });
  }

  /** Said on NATS to all coordinators of the group: a request that does not run here is another's. */
  private cancelled(requestId: string, tenant: string): void {
    this.requests.endIfHere(requestId, tenant);
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
   * @throws ServeError of FINAL when no group of a fixed list ever stood: trying again does not help.
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
    await this.tuneOnce(group);
    if (this.closing) return group.close();
    // Lost meanwhile: nobody was told, as it is not attached.
    if (group.failure !== undefined) throw group.failure;
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

  /** Budgets of the steps, from the first group's speed; bits do not depend on them. */
  private async tuneOnce(group: Group): Promise<void> {
    if (this.tuned) return;
    const { maxBatchedTokens, maxSequences } = this.options;
    const { plan: limits } = this;
    const fixed = { maxBatchedTokens, maxSequences };
    const nowMs = () => performance.now();
    const { ranks } = this.metrics;
    // Counted as steps are, so that both sides tell the same.
    const counted = {
      get lastStepId() {
        return group.lastStepId;
      },
      step: (plan: LoopPlan) =>
        group.step(plan).then((answers) => {
          answers.forEach(({ times }, rank) => times && ranks.observe(rank, times));
          return answers;
        }),
    };
    const pace = await warmUp({ group: counted, limits, fixed, nowMs }).catch((error: unknown) => {
      group.close();
      throw error;
    });
    this.tuned = true;
    this.loop.tune(pace);
    this.log.info(pace, "budgets of a step");
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

  /** Takes nothing new; waits for what runs. Returns how many were ended at the deadline. */
  async drain(deadlineMs: number): Promise<number> {
    this.setState("draining");
    const end = performance.now() + deadlineMs;
    while (this.requests.size > 0 && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 20));
    return this.requests.endAll();
  }

  refreshMetrics(): void {
    const load = this.loop.load();
    this.metrics.running.set(load.runningSequences);
    this.metrics.waiting.set(load.waitingRequests);
    this.metrics.open.set(this.requests.size);
    this.metrics.queuedTokens.set(this.requests.queuedTokens);
    this.metrics.cacheUsage.set(load.usedBlocks / this.plan.blockCount);
    this.metrics.embeddings.set({ state: "held" }, load.embeddings);
    this.metrics.embeddings.set({ state: "idle" }, load.idleEmbeddings);
    this.metrics.crossBlocks.set({ state: "held" }, load.usedCrossBlocks);
    this.metrics.crossBlocks.set({ state: "idle" }, load.idleCrossBlocks);
    const free = this.plan.crossBlockCount - load.usedCrossBlocks - load.idleCrossBlocks;
    this.metrics.crossBlocks.set({ state: "free" }, free);
    this.metrics.eventLoopLag.set(this.lag.takeP99());
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
    clearInterval(this.sweep);
    this.group?.close();
    this.loop.detach(new ServeError("DRAINING", "the server stops"));
    this.lag.close();
    await this.membership.close();
    await this.grammars.close();
    await this.context.texts.close();
    await this.tracing.close();
  }
}
