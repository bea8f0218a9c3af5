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
import { ActiveRequest, Sequence, type ActiveTile, type RequestSink } from "./active.js";
import { EncodePace } from "./encode-pace.js";
import { Outbox } from "./outbox.js";
import { buildPlan, MAX_OPENED_BYTES, openedBytes } from "./plan.js";
import { sampleRow } from "./sample-row.js";

export interface LoopLimits {
  blockCount: number;
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
  private closed: bigint[] = [];
  private releasedEmbeddings: bigint[] = [];
  /** Embeddings that the step in flight releases; the workers may hold them until it is answered. */
  private releasing = 0;
  private nextSequence = 1n;
  private nextEmbedding = 1n;
  private arrivals = 0;
  private turning = false;
  /** Something came since the turn under way looked. */
  private again = false;
  private encoding = false;
  private readonly pace: EncodePace;
  private readonly outbox = new Outbox();
  lastTurnMs = 0;

  constructor(private readonly options: LoopOptions) {
    this.scheduler = this.freshScheduler();
    const { limits, stepDeadlineMs } = options;
    this.pace = new EncodePace({ maxTiles: limits.maxTiles, unknownMs: stepDeadlineMs });
  }

  private freshScheduler(): Scheduler<Sequence> {
    const { blockCount, maxBatchedTokens, maxSequences } = this.options.limits;
    return new Scheduler(new BlockPool(blockCount), { maxBatchedTokens, maxSequences });
  }

  /** A group was formed: nothing of older epochs is left on it. */
  attach(group: RunningGroup): void {
    this.group = group;
    this.scheduler = this.freshScheduler();
    this.closed = [];
    this.releasedEmbeddings = [];
    this.releasing = 0;
    this.wake();
  }

  /** The epoch ended: every request fails with the reason. */
  detach(error: ServeError): void {
    this.group = undefined;
    for (const request of [...this.requests]) this.fail(request, error);
    this.scheduler = this.freshScheduler();
    this.encoding = false;
  }

  load() {
    return {
      waitingRequests: [...this.requests].filter((request) => request.scheduledMs === undefined)
        .length,
      runningSequences: this.scheduler.runningCount,
      usedBlocks: this.scheduler.pool.usedCount,
      embeddings: [...this.requests].reduce((sum, request) => sum + request.tiles.length, 0),
    };
  }
  get requestCount(): number {
    return this.requests.size;
  }

  /** @throws ServeError NOT_READY without a group. */
  submit(prepared: PreparedRequest, sink: RequestSink): ActiveRequest {
    if (this.group === undefined)
      throw new ServeError("NOT_READY", "no group of workers is formed");
    const tiles = prepared.tiles.map((tile): ActiveTile => ({
      embeddingId: this.nextEmbedding++,
      tile,
      rank: 0,
      state: "waiting",
    }));
    const request = new ActiveRequest(prepared, tiles, sink, this.options.nowMs());
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
    // A tile on its way is released when it has been encoded; before, the workers do not know it.
    for (const tile of request.tiles)
      if (tile.state === "ready") this.releasedEmbeddings.push(tile.embeddingId);
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
    this.openSequences();
    this.startEncode(group);
    const planStart = performance.now();
    const preempted = this.scheduler.preemptions;
    const slices = this.scheduler.next();
    metrics.preemptions.inc(this.scheduler.preemptions - preempted);
    const { sequenceCount } = this.scheduler;
    assert(slices.length > 0 || sequenceCount === 0, `none of ${sequenceCount} sequences can run`);
    const idle =
      slices.length === 0 && this.closed.length === 0 && this.releasedEmbeddings.length === 0;
    this.lastTurnMs = nowMs();
    if (idle) return false;
    const releasedEmbeddings = this.releasedEmbeddings.splice(0);
    this.releasing = releasedEmbeddings.length;
    const plan = buildPlan(slices, {
      closed: this.closed.splice(0),
      releasedEmbeddings,
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
    this.releasing = 0;
    const sampleStart = performance.now();
    await this.sample(group, slices, answers);
    const sampleMs = performance.now() - sampleStart;
    metrics.coordinatorSeconds.observe((planMs + sampleMs + this.outbox.takeSpentMs()) / 1e3);
    return true;
  }

  /**
   * Requests whose tiles are ready become sequences, by priority and arrival; no more at once than what the next plan
   * can open on the ranks.
   */
  private openSequences(): void {
    const waiting = [...this.requests]
      .filter((request) => request.scheduledMs === undefined && request.encoded)
      .sort((a, b) => a.prepared.priority - b.prepared.priority);
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

  /** Tiles of waiting requests, dealt over the ranks; one batch at a time, beside the steps. */
  private startEncode(group: RunningGroup): void {
    if (this.encoding) return;
    const { maxEmbeddings } = this.options.limits;
    const perRank = this.pace.tilesPerRank(this.scheduler.sequenceCount > 0);
    const all = [...this.requests].flatMap((request) => request.tiles);
    const ready = all.filter((tile) => tile.state === "ready").length;
    const room = maxEmbeddings - ready - this.releasedEmbeddings.length - this.releasing;
    const batch = all
      .filter((tile) => tile.state === "waiting")
      .slice(0, Math.max(0, Math.min(room, perRank * group.size)));
    if (batch.length === 0) return;
    this.encoding = true;
    const byRank = Array.from({ length: group.size }, (): ActiveTile[] => []);
    batch.forEach((tile, i) => {
      tile.rank = i % group.size;
      tile.state = "encoding";
      byRank[tile.rank]?.push(tile);
    });
    void this.encode(group, batch, byRank).catch(this.options.onFault);
  }

  private async encode(
    group: RunningGroup,
    batch: ActiveTile[],
    byRank: ActiveTile[][],
  ): Promise<void> {
    const start = this.options.nowMs();
    const involved = () =>
      [...this.requests].filter((request) => request.tiles.some((tile) => batch.includes(tile)));
    for (const request of involved()) request.encodeStartMs ??= start;
    try {
      const tiles = byRank.map((list) =>
        list.map(({ embeddingId, tile }) => ({ embeddingId, pixels: tile.pixels })),
      );
      const { progress, bounds } = this.options;
      // Dealt from rank 0 on, which has the most.
      const most = byRank[0]?.length ?? 1;
      const estimateMs = this.pace.estimateMs(most);
      const work = () => group.encode(tiles, estimateMs);
      this.pace.observe(most, await progress.track(bounds.encodeMs, work));
      for (const tile of batch) tile.state = "ready";
    } catch (error) {
      if (error !== group.failure) throw error;
    }
    if (this.group !== group) return;
    const live = new Set([...this.requests].flatMap((request) => request.tiles));
    for (const tile of batch) if (!live.has(tile)) this.releasedEmbeddings.push(tile.embeddingId);
    const end = this.options.nowMs();
    for (const request of involved()) request.encodeEndMs = end;
    this.options.metrics.encodeSeconds.observe((end - start) / 1e3);
    this.options.metrics.encodeTiles.observe(batch.length);
    this.encoding = false;
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
      metrics.timeToFirstToken.observe((now - request.acceptedMs) / 1e3);
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
