/**
 * The loop: one turn a step. Tiles are given out, slices chosen, a plan sent to every rank, tokens sampled and handed
 * on as text. A cancel takes effect in the next plan.
 */
import assert from "node:assert/strict";
import { type Progress, ServeError } from "@tessera/proto";
import type { RowResult, StepResponse } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { RunningGroup } from "../cluster/group.js";
import type { CoordinatorMetrics } from "../metrics.js";
import { BlockPool } from "../schedule/blocks.js";
import { Scheduler, type SliceChoice } from "../schedule/scheduler.js";
import type { ChoiceText, FinishCause, PreparedRequest } from "../request/types.js";
import { ActiveRequest, Sequence, type RequestSink } from "./active.js";
import { Encoding, type EncodedBatch } from "./encoding.js";
import { ImageStore, type ImageCounts, type RequestImages } from "./images.js";
import { Outbox } from "./outbox.js";
import { buildPlan, MAX_OPENED_BYTES, openedBytes } from "./plan.js";
import { sampleRow } from "./sample-row.js";

export interface LoopLimits {
  blockCount: number;
  /** Blocks of the cross cache; 0 without cross-attention. */
  crossBlockCount: number;
  /** Rows of images' streams that one step opens. */
  maxStreamRows: number;
  maxBatchedTokens: number;
  maxSequences: number;
  /** Tiles of one Encode a rank. */
  maxTiles: number;
  maxEmbeddings: number;
  /** Rows of lm_head: a lane cannot have more candidates. */
  vocabulary: number;
  /** Requests accepted and not ended. */
  maxRequests: number;
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
  createText: (request: PreparedRequest) => ChoiceText;
  nowMs: () => number;
  /** A fault of this process, not of a rank: nothing can be trusted any more. */
  onFault: (error: unknown) => void;
}

/** Rows of all ranks. */
function rowsBySequence(answers: StepResponse[]): Map<bigint, RowResult[]> {
  const rows = new Map<bigint, RowResult[]>();
  for (const row of answers.flatMap((answer) => answer.rows)) {
    const known = rows.get(row.sequenceId);
    if (known === undefined) rows.set(row.sequenceId, [row]);
    else known.push(row);
  }
  return rows;
}

export class EngineLoop {
  private group: RunningGroup | undefined;
  private scheduler: Scheduler<Sequence>;
  private readonly requests = new Set<ActiveRequest>();
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
    const { blockCount, maxBatchedTokens, maxSequences } = this.options.limits;
    return new Scheduler(new BlockPool(blockCount), { maxBatchedTokens, maxSequences });
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
    for (const request of [...this.requests]) this.fail(request, error);
    this.scheduler = this.freshScheduler();
    this.images = new ImageStore(this.options.limits);
    this.encoding.reset();
  }

  load() {
    return {
      waitingRequests: [...this.requests].filter((request) => request.scheduledMs === undefined)
        .length,
      runningSequences: this.scheduler.runningCount,
      usedBlocks: this.scheduler.pool.usedCount,
      ...this.images.load(),
    };
  }
  get requestCount(): number {
    return this.requests.size;
  }

  /** @throws ServeError NOT_READY without a group. */
  submit(prepared: PreparedRequest, sink: RequestSink): ActiveRequest {
    if (this.group === undefined)
      throw new ServeError("NOT_READY", "no group of workers is formed");
    const request = new ActiveRequest(prepared, sink, this.options.nowMs());
    this.requests.add(request);
    this.wake();
    return request;
  }

  /** Ends a request from outside; its blocks and embeddings are free from the next plan on. */
  cancel(request: ActiveRequest, cause: FinishCause): void {
    if (request.ended) return;
    if (request.scheduledMs === undefined)
      for (let choice = 0; choice < request.prepared.choiceCount; choice++)
        this.outbox.add(() => request.sink.piece(choice, { text: "", tokens: [], finish: cause }));
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
    this.requests.delete(request);
    for (const sequence of request.sequences) this.remove(sequence);
    request.sequences = [];
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
    if (sequence.opened) this.closed.push(sequence.id);
  }

  private finish(sequence: Sequence, piece: ReturnType<ChoiceText["end"]>): void {
    const { request } = sequence;
    this.remove(sequence);
    request.sequences = request.sequences.filter((other) => other !== sequence);
    this.outbox.add(() => request.sink.piece(sequence.choice, piece));
    if (request.sequences.length === 0 && !request.ended) this.end(request);
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
    this.holdImages();
    const encoded = this.startEncode(group);
    // Ranks that encode together do it in the same order beside the steps: never both at once.
    if (group.encodesTogether) await encoded;
    if (this.group !== group) return false;
    const planStart = performance.now();
    const openedStreams = this.images.openStreams(this.withImages());
    this.openSequences();
    const preempted = this.scheduler.preemptions;
    const slices = this.scheduler.next();
    metrics.preemptions.inc(this.scheduler.preemptions - preempted);
    const { sequenceCount } = this.scheduler;
    assert(slices.length > 0 || sequenceCount === 0, `none of ${sequenceCount} sequences can run`);
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
    metrics.batchTokens.observe(slices.reduce((sum, slice) => sum + slice.count, 0));
    answers.forEach(({ times }, rank) => times && metrics.ranks.observe(rank, times));
    if (this.group !== group) return false;
    this.images.gone(embeddings);
    const sampleStart = performance.now();
    await this.sample(group, slices, answers);
    const sampleMs = performance.now() - sampleStart;
    metrics.coordinatorSeconds.observe((planMs + sampleMs + this.outbox.takeSpentMs()) / 1e3);
    return true;
  }

  /** Requests that are not scheduled yet, by priority and arrival. */
  private waiting(): ActiveRequest[] {
    return [...this.requests]
      .filter((request) => request.scheduledMs === undefined)
      .sort((a, b) => a.prepared.priority - b.prepared.priority);
  }

  /**
   * Requests take what they need of pictures, all or nothing and in order: none that waits for room is passed by
   * another one that would take it.
   */
  private holdImages(): void {
    let room = true;
    for (const request of this.waiting()) {
      if (request.images !== undefined) continue;
      const { prepared } = request;
      if (!room && prepared.tiles.length > 0) continue;
      const held = this.images.hold(prepared, request.acceptedMs);
      room &&= held !== undefined;
      if (held === undefined) continue;
      request.images = held.images;
      this.countImages(held.counts);
    }
  }

  private countImages({ tiles, streams }: ImageCounts): void {
    const { metrics } = this.options;
    metrics.embeddingQueries.inc(tiles.asked);
    metrics.embeddingHits.inc(tiles.found);
    metrics.streamQueries.inc(streams.asked);
    metrics.streamHits.inc(streams.found);
  }

  private withImages(): { prepared: PreparedRequest; images: RequestImages }[] {
    return this.waiting().flatMap(({ prepared, images }) =>
      images === undefined || prepared.tiles.length === 0 ? [] : [{ prepared, images }],
    );
  }

  /**
   * Requests whose pictures are on the workers become sequences, by priority and arrival; no more at once than what the
   * next plan can open on the ranks.
   */
  private openSequences(): void {
    const waiting = this.waiting().filter(
      ({ prepared, images }) => images !== undefined && this.images.ready(prepared, images),
    );
    if (waiting.length === 0) return;
    let unopened = this.unopenedBytes();
    for (const request of waiting) {
      const bytes = request.prepared.choiceCount * openedBytes(request.prepared);
      if (unopened > 0 && unopened + bytes > MAX_OPENED_BYTES) return;
      unopened += bytes;
      if (
        this.scheduler.sequenceCount + request.prepared.choiceCount >
        this.options.limits.maxSequences
      )
        return;
      request.scheduledMs = this.options.nowMs();
      for (let choice = 0; choice < request.prepared.choiceCount; choice++) {
        const text = this.options.createText(request.prepared);
        const sequence = new Sequence(this.nextSequence++, request, choice, this.arrivals++, text);
        request.sequences.push(sequence);
        this.scheduler.add(sequence);
      }
    }
  }

  /** Of what sequences that no plan has named yet will add to one. */
  private unopenedBytes(): number {
    return [...this.requests]
      .flatMap((request) => request.sequences)
      .filter((sequence) => !sequence.opened)
      .reduce((sum, { request }) => sum + openedBytes(request.prepared), 0);
  }

  /** The next batch of tiles, if one can go out now. */
  private startEncode(group: RunningGroup): Promise<void> | undefined {
    const tiles = this.withImages().flatMap(({ images }) =>
      images.tiles.filter((tile) => tile !== undefined),
    );
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
    return [...this.requests].filter((request) =>
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
    const rows = rowsBySequence(answers);
    for (const { sequence, start, count } of slices) {
      if (sequence.request.ended || !sequence.request.sequences.includes(sequence)) continue;
      if (start + count !== sequence.tokens.length) continue;
      const outcome = await sampleRow(group, rows.get(sequence.id) ?? [], {
        sequence,
        row: count - 1,
        stepId,
        vocabulary: this.options.limits.vocabulary,
      });
      // Meanwhile the epoch may have ended, or the request.
      if (this.group !== group) return;
      if (sequence.request.ended || !sequence.request.sequences.includes(sequence)) continue;
      if (outcome instanceof ServeError) {
        if (outcome.code === "NON_FINITE") this.options.metrics.nonFinite.inc();
        this.fail(sequence.request, outcome);
        continue;
      }
      this.accept(sequence, outcome);
    }
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
    const piece = sequence.text.push(token);
    if (piece.finish !== undefined) this.finish(sequence, piece);
    else if (piece.text !== "" || piece.tokens.length > 0)
      this.outbox.add(() => request.sink.piece(sequence.choice, piece));
  }
}
