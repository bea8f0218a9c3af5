/**
 * The loop: one turn a step. Tiles are given out, slices chosen, a plan sent to every rank, tokens sampled and handed
 * on as text. A cancel takes effect in the next plan.
 */
import assert from "node:assert/strict";
import { type Progress, ServeError } from "@tessera/proto";
import type { StepResponse } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { RunningGroup } from "../cluster/group.js";
import type { CoordinatorMetrics } from "../metrics.js";
import { BlockPool } from "../schedule/blocks.js";
import { Scheduler, type SliceChoice } from "../schedule/scheduler.js";
import type { ChoiceText, FinishCause, PreparedRequest, SampledToken } from "../request/types.js";
import { ActiveRequest, Sequence, type RequestSink, type SubmitOptions } from "./active.js";
import { Drafting } from "./drafting.js";
import { Encoding, type EncodedBatch } from "./encoding.js";
import { ImageStore } from "./images.js";
import { Intake } from "./intake.js";
import { Masks } from "./masks.js";
import { Outbox } from "./outbox.js";
import { buildPlan } from "./plan.js";
import { BlockKeys } from "./prefix.js";
import { takeScores } from "./prompt-scores.js";
import { rowsBySequence, sampleRow } from "./sample-row.js";

export interface LoopLimits {
  blockCount: number;
  /** Blocks of the cross cache; 0 without cross-attention. */
  crossBlockCount: number;
  /** Rows of images' streams that one step opens. */
  maxStreamRows: number;
  maxBatchedTokens: number;
  maxSequences: number;
  /** Rows of a step whose results are wanted. */
  maxWantedRows: number;
  /** Tiles of one Encode a rank. */
  maxTiles: number;
  maxEmbeddings: number;
  /** Rows of lm_head: a lane cannot have more candidates. */
  vocabulary: number;
  /** Requests accepted and not ended. */
  maxRequests: number;
  /** Tokens of a sequence that one step may guess; 0: none. */
  draftTokens: number;
}

export interface LoopOptions {
  limits: LoopLimits;
  metrics: CoordinatorMetrics;
  /** Steps and encodes in flight; `bounds` of each. */
  progress: Progress;
  bounds: { stepMs: number; encodeMs: number };
  /** Of a step on the ranks. */
  stepDeadlineMs: number;
  /** What a batch of tiles may take of the running sequences' time. */
  encodeBudgetMs: number;
  /** Of what the prefix cache's keys begin with; undefined: nothing is kept. */
  prefixRoot: ((request: PreparedRequest) => string) | undefined;
  createText: (request: PreparedRequest) => ChoiceText;
  nowMs: () => number;
  /** A fault of this process, not of a rank: nothing can be trusted any more. */
  onFault: (error: unknown) => void;
}

export class EngineLoop {
  private group: RunningGroup | undefined;
  /** Of the limits what a warm-up may lower. */
  private pace: Pick<LoopLimits, "maxBatchedTokens" | "maxSequences">;
  private scheduler: Scheduler<Sequence>;
  private readonly intake: Intake;
  private readonly masks: Masks;
  private images: ImageStore;
  private closed: bigint[] = [];
  private nextSequence = 1n;
  private arrivals = 0;
  private turning = false;
  /** Something came since the turn under way looked. */
  private again = false;
  private readonly encoding: Encoding;
  private readonly outbox = new Outbox();
  lastTurnMs = 0;

  constructor(private readonly options: LoopOptions) {
    const { limits, stepDeadlineMs, encodeBudgetMs, bounds } = options;
    this.intake = new Intake(options.metrics);
    this.masks = new Masks(() => this.wake());
    this.pace = limits;
    this.scheduler = this.freshScheduler();
    this.images = new ImageStore(limits);
    this.encoding = new Encoding({
      ...options,
      maxTiles: limits.maxTiles,
      budgetMs: encodeBudgetMs,
      unknownMs: stepDeadlineMs,
      boundMs: bounds.encodeMs,
    });
  }

  private freshScheduler(): Scheduler<Sequence> {
    const { blockCount, maxWantedRows } = this.options.limits;
    const prefixCache = this.options.prefixRoot !== undefined;
    return new Scheduler(new BlockPool(blockCount), { ...this.pace, maxWantedRows, prefixCache });
  }

  /** Budgets of the steps from the next `attach` on; at most the limits. */
  tune(pace: Pick<LoopLimits, "maxBatchedTokens" | "maxSequences">): void {
    this.pace = pace;
  }

  /** A group was formed: nothing of older epochs is left on it. */
  attach(group: RunningGroup): void {
    this.group = group;
    this.scheduler = this.freshScheduler();
    this.images = new ImageStore(this.options.limits);
    this.closed = [];
    this.wake();
  }

  /** The epoch ended: every request fails with the reason. */
  detach(error: ServeError): void {
    this.group = undefined;
    for (const request of [...this.intake.requests]) this.fail(request, error);
    this.scheduler = this.freshScheduler();
    this.images = new ImageStore(this.options.limits);
    this.encoding.reset();
  }

  load() {
    return {
      waitingRequests: this.intake.waiting().length,
      waitingTokens: BigInt(this.intake.waitingTokens),
      runningSequences: this.scheduler.runningCount,
      usedBlocks: this.scheduler.pool.usedCount,
      idleBlocks: this.scheduler.pool.idleCount,
      ...this.images.load(),
    };
  }
  get requestCount(): number {
    return this.intake.requests.size;
  }

  /** @throws ServeError NOT_READY without a group. */
  submit(prepared: PreparedRequest, sink: RequestSink, options: SubmitOptions): ActiveRequest {
    if (this.group === undefined) {
      options.grammar?.close();
      throw new ServeError("NOT_READY", "no group of workers is formed");
    }
    const request = new ActiveRequest(prepared, sink, options, this.options.nowMs());
    this.intake.add(request);
    this.wake();
    return request;
  }

  /** Ends a request from outside; its blocks and embeddings are free from the next plan on. */
  cancel(request: ActiveRequest, cause: FinishCause): void {
    if (request.ended) return;
    const { choiceCount } = request.prepared;
    this.tellScores(request, []);
    const begun = request.scheduledMs === undefined ? 0 : choiceCount - request.unforked;
    for (let choice = begun; choice < choiceCount; choice++)
      this.outbox.add(() => request.sink.piece(choice, { text: "", tokens: [], finish: cause }));
    request.unforked = 0;
    for (const sequence of [...request.sequences]) this.finish(sequence, sequence.text.end(cause));
    if (!request.ended) this.end(request);
    this.outbox.flush();
  }

  /** Ends a request with an error instead of its events. */
  fail(request: ActiveRequest, error: ServeError): void {
    if (request.ended) return;
    this.drop(request);
    this.outbox.add(() => request.sink.failed(error));
    this.outbox.flush();
  }

  private drop(request: ActiveRequest): void {
    request.ended = true;
    for (const sequence of request.sequences) this.remove(sequence);
    request.sequences = [];
    request.unforked = 0;
    this.intake.remove(request);
    request.options.grammar?.close();
    if (request.images !== undefined) this.images.leave(request.images);
    request.images = undefined;
    this.wake();
  }

  private end(request: ActiveRequest): void {
    this.drop(request);
    const timings = request.timings(this.options.nowMs());
    this.outbox.add(() => request.sink.done(timings));
  }

  private remove(sequence: Sequence): void {
    this.scheduler.remove(sequence);
    sequence.parts.matcher?.close();
    this.masks.forget(sequence);
    if (sequence.opened) this.closed.push(sequence.id);
  }

  private finish(sequence: Sequence, piece: ReturnType<ChoiceText["end"]>): void {
    const { request } = sequence;
    this.remove(sequence);
    request.sequences = request.sequences.filter((other) => other !== sequence);
    this.outbox.add(() => request.sink.piece(sequence.choice, piece));
    if (request.reserved === 0 && !request.ended) this.end(request);
  }

  private wake(): void {
    this.again = true;
    if (this.turning) return;
    this.turning = true;
    setImmediate(() => void this.run());
  }

  private async run(): Promise<void> {
    try {
      while (this.again && this.group !== undefined) {
        this.again = false;
        await this.turns(this.group);
      }
      this.turning = false;
      this.outbox.flush();
    } catch (error) {
      this.options.onFault(error);
    }
  }

  /** Until nothing is left to do, or the epoch has ended: that was told to `detach` already. */
  private async turns(group: RunningGroup): Promise<void> {
    try {
      while (this.group === group && (await this.turn(group)));
    } catch (error) {
      if (error !== group.failure) throw error;
      // Another group may have come meanwhile.
      this.again = this.group !== group;
    }
  }

  /** One step; false when there is nothing to do. */
  private async turn(group: RunningGroup): Promise<boolean> {
    const { nowMs, metrics, progress, bounds } = this.options;
    this.intake.holdImages(this.images);
    const encoded = this.startEncode(group);
    // Ranks that encode together do it in the same order beside the steps: never both at once.
    if (group.encodesTogether && encoded !== undefined) {
      this.outbox.flush();
      await encoded;
    }
    await this.settleMasks();
    if (this.group !== group) return false;
    const planStart = performance.now();
    const openedStreams = this.images.openStreams(this.intake.withImages());
    this.openSequences();
    const slices = this.nextSlices();
    const nothing = slices.length === 0 && openedStreams.length === 0 && this.closed.length === 0;
    this.lastTurnMs = nowMs();
    if (nothing && !this.images.anythingReleased) return false;
    const { embeddings, streams } = this.images.takeReleased();
    metrics.streamsComputed.inc(openedStreams.length);
    const plan = buildPlan(slices, {
      closed: this.closed.splice(0),
      releasedEmbeddings: embeddings,
      closedStreams: streams,
      openedStreams,
      releasedStep: group.lastStepId,
    });
    const planMs = performance.now() - planStart;
    const stepStart = performance.now();
    const step = progress.track(bounds.stepMs + group.encodingMs, () => group.step(plan));
    // The plan's bytes leave before immediates run.
    setImmediate(() => this.outbox.flush());
    const answers = await step;
    metrics.stepSeconds.observe((performance.now() - stepStart) / 1e3);
    this.outbox.flush();
    const computed = slices.map(({ count, drafts }) => count + drafts.length);
    metrics.batchTokens.observe(computed.reduce((sum, count) => sum + count, 0));
    answers.forEach(({ times }, rank) => times && metrics.ranks.observe(rank, times));
    if (this.group !== group) return false;
    this.images.gone(embeddings);
    this.scheduler.computed(slices);
    const sampleStart = performance.now();
    await this.sample(group, slices, answers);
    const sampleMs = performance.now() - sampleStart;
    metrics.coordinatorSeconds.observe((planMs + sampleMs + this.outbox.takeSpentMs()) / 1e3);
    return true;
  }

  private nextSlices(): SliceChoice<Sequence>[] {
    const { metrics } = this.options;
    const { preemptions, prefix } = this.scheduler;
    const { queries, hits } = prefix;
    const slices = this.scheduler.next();
    metrics.preemptions.inc(this.scheduler.preemptions - preemptions);
    metrics.prefixQueries.inc(prefix.queries - queries);
    metrics.prefixHits.inc(prefix.hits - hits);
    const { sequenceCount } = this.scheduler;
    assert(
      slices.length > 0 || sequenceCount === 0 || this.masks.anyLate,
      `none of ${sequenceCount} sequences can run`,
    );
    for (const { sequence, start } of slices) sequence.request.cachedTokens ??= start;
    return slices;
  }

  /** Requests that can begin become sequences; of several choices the first, until the prompt is computed. */
  private openSequences(): void {
    for (const request of this.intake.begin(this.images, this.pace)) {
      request.scheduledMs = this.options.nowMs();
      request.unforked = request.prepared.choiceCount - 1;
      request.sink.begun();
      this.scheduler.add(this.createSequence(request, 0));
    }
  }

  private createSequence(request: ActiveRequest, choice: number, keys?: BlockKeys): Sequence {
    const { prepared, options } = request;
    const { createText, prefixRoot, limits, metrics } = this.options;
    const { draftTokens } = limits;
    const sequence = new Sequence(this.nextSequence++, request, choice, this.arrivals++, {
      text: createText(prepared),
      keys: keys ?? new BlockKeys(prefixRoot?.(prepared) ?? "", prepared),
      matcher: options.grammar?.open(),
      drafting: draftTokens > 0 ? new Drafting(draftTokens, prepared, metrics) : undefined,
    });
    request.sequences.push(sequence);
    this.masks.follow(sequence);
    return sequence;
  }

  /** The prompt is computed: the other choices begin with its blocks. */
  private fork(parent: Sequence): void {
    const { request } = parent;
    const { choiceCount, promptIds } = request.prepared;
    while (request.unforked > 0) {
      const choice = choiceCount - request.unforked--;
      const keys = parent.parts.keys.fork(promptIds.length);
      this.scheduler.fork(parent, this.createSequence(request, choice, keys));
    }
  }

  /** Waits a little for masks; who has none by then is left out of the step. */
  private async settleMasks(): Promise<void> {
    const constrained = this.running().filter(({ parts }) => parts.matcher !== undefined);
    for (const { sequence, outcome } of await this.masks.settle(constrained)) {
      if (sequence.request.ended || !sequence.request.sequences.includes(sequence)) continue;
      if (outcome instanceof ServeError) this.fail(sequence.request, outcome);
      else this.finish(sequence, sequence.text.end(outcome));
    }
  }

  private running(): Sequence[] {
    return [...this.intake.requests].flatMap(({ sequences }) => sequences);
  }

  /** The next batch of tiles, if one can go out now. */
  private startEncode(group: RunningGroup): Promise<void> | undefined {
    const tiles = this.intake
      .withImages()
      .flatMap(({ images }) => images.tiles.filter((tile) => tile !== undefined));
    const sequencesRun = this.scheduler.sequenceCount > 0;
    const batch = this.encoding.choose(group, tiles, { room: this.images.room, sequencesRun });
    if (batch.size === 0) return undefined;
    const now = this.options.nowMs();
    for (const request of this.involved(batch)) request.encodeStartMs ??= now;
    return this.encoding
      .run(group, this.images, batch)
      .then((encoded) => this.encoded(group, encoded))
      .catch(this.options.onFault);
  }

  private involved(batch: EncodedBatch["tiles"]): ActiveRequest[] {
    return [...this.intake.requests].filter((request) =>
      request.images?.tiles.some((tile) => tile !== undefined && batch.has(tile)),
    );
  }

  private encoded(group: RunningGroup, batch: EncodedBatch | undefined): void {
    if (batch === undefined || this.group !== group) return;
    for (const request of this.involved(batch.tiles)) request.encodeEndMs = batch.endMs;
    this.wake();
  }

  private async sample(
    group: RunningGroup,
    slices: SliceChoice<Sequence>[],
    answers: StepResponse[],
  ): Promise<void> {
    const stepId = group.lastStepId;
    const { vocabulary } = this.options.limits;
    const rows = rowsBySequence(answers);
    for (const slice of slices) {
      const { sequence, start, count } = slice;
      if (!this.runs(sequence)) continue;
      const own = rows.get(sequence.id) ?? [];
      const failure = takeScores(slice, own);
      if (failure !== undefined) this.failSampling(sequence, failure);
      let more = failure === undefined && start + count === sequence.tokens.length;
      for (let row = count - 1; more; row++) {
        const sampled = sampleRow(group, own, { sequence, row, stepId, vocabulary });
        const chosen = sampled instanceof Promise ? await sampled : sampled;
        // Meanwhile the epoch may have ended, or the request.
        if (this.group !== group) return;
        more = this.runs(sequence) && this.take(slice, row, chosen);
      }
    }
  }

  /** → whether the row behind counts: what was chosen is the draft that it stands on */
  private take(
    slice: SliceChoice<Sequence>,
    row: number,
    chosen: SampledToken | ServeError,
  ): boolean {
    const { sequence, count, drafts } = slice;
    if (chosen instanceof ServeError) {
      this.failSampling(sequence, chosen);
      return false;
    }
    this.promptIsComputed(sequence);
    this.accept(sequence, chosen);
    const before = row - (count - 1);
    const right = chosen.tokenId === drafts[before];
    if (right && this.runs(sequence)) return true;
    this.verified(slice, right ? before + 1 : before);
    return false;
  }

  private failSampling(sequence: Sequence, error: ServeError): void {
    if (error.code === "NON_FINITE") this.options.metrics.nonFinite.inc();
    this.fail(sequence.request, error);
  }

  /** The drafts of a slice were looked at; the next ones are guessed. */
  private verified(slice: SliceChoice<Sequence>, accepted: number): void {
    const { sequence } = slice;
    const { matcher, drafting } = sequence.parts;
    drafting?.verified(slice.drafts.length, accepted);
    if (drafting === undefined || !this.runs(sequence)) return;
    this.scheduler.accepted(slice, accepted);
    sequence.knownTokens += accepted;
    drafting.propose(sequence.tokens);
    matcher?.lookAhead(drafting.proposal);
  }

  private runs(sequence: Sequence): boolean {
    return !sequence.request.ended && sequence.request.sequences.includes(sequence);
  }

  /** With the first token of the first choice. */
  private promptIsComputed(sequence: Sequence): void {
    const { request } = sequence;
    this.tellScores(request, request.scoring ?? []);
    if (request.unforked > 0) this.fork(sequence);
  }

  /** Once, before any other event: of a request that is cancelled before its prompt is computed there are none. */
  private tellScores(request: ActiveRequest, scores: SampledToken[]): void {
    if (request.scoring === undefined) return;
    request.scoring = undefined;
    this.outbox.add(() => request.sink.promptScored(scores));
  }

  /** @throws AssertionError when something is held for nobody. */
  audit(): void {
    this.scheduler.audit();
    const running = this.running();
    assert.equal(this.scheduler.sequenceCount, running.length, "sequences scheduled and running");
    for (const request of this.intake.requests) assert(!request.ended, "an ended request is held");
    const held = [...this.intake.requests].map(({ images }) => images);
    this.images.audit(held.filter((images) => images !== undefined));
    this.masks.audit(running);
  }

  private accept(sequence: Sequence, token: Parameters<ChoiceText["push"]>[0]): void {
    const { request } = sequence;
    const { metrics } = this.options;
    const now = this.options.nowMs();
    if (request.firstTokenMs === undefined)
      metrics.timeToFirstToken.observe((now - request.acceptedMs) / 1e3, request.exemplar);
    if (sequence.lastTokenMs !== undefined)
      metrics.interTokenLatency.observe((now - sequence.lastTokenMs) / 1e3);
    request.firstTokenMs ??= now;
    sequence.lastTokenMs = now;
    request.completionTokens++;
    metrics.generationTokens.inc();
    sequence.tokens.push(token.tokenId);
    sequence.parts.matcher?.accept(token.tokenId);
    this.intake.charge(request);
    const piece = sequence.text.push(token);
    if (piece.finish !== undefined) this.finish(sequence, piece);
    else if (piece.text !== "" || piece.tokens.length > 0 || (piece.toolCalls ?? []).length > 0)
      this.outbox.add(() => request.sink.piece(sequence.choice, piece));
  }
}
