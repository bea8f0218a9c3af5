/** Requests that were taken: which of them comes next, what it holds of pictures, and when it becomes sequences. */
import type { CoordinatorMetrics } from "../metrics.js";
import { FairShare } from "../schedule/fair-share.js";
import type { PreparedRequest } from "../request/types.js";
import type { ActiveRequest } from "./active.js";
import type { ImageCounts, ImageStore, RequestImages } from "./images.js";
import { MAX_OPENED_BYTES, openedBytes } from "./plan.js";

export interface IntakeRoom {
  maxSequences: number;
}

export class Intake {
  readonly requests = new Set<ActiveRequest>();
  private readonly shares = new FairShare();
  /** In order; undefined when it has to be made anew. */
  private queue: ActiveRequest[] | undefined;

  constructor(private readonly metrics: CoordinatorMetrics) {}

  add(request: ActiveRequest): void {
    this.requests.add(request);
    this.queue = undefined;
  }
  remove(request: ActiveRequest): void {
    this.requests.delete(request);
    this.queue = undefined;
    this.shares.keep(new Set([...this.requests].map(({ prepared }) => prepared.tenant)));
  }
  /** A token was made. */
  charge({ prepared }: ActiveRequest): void {
    this.shares.charge(prepared.tenant, 1);
  }

  /** Requests that are not scheduled yet: by priority, then by tenants' shares, then by arrival. */
  waiting(): ActiveRequest[] {
    if (this.queue !== undefined) return this.queue;
    const claims = [...this.requests]
      .filter((request) => request.scheduledMs === undefined)
      .map((request) => request.claim);
    this.queue = this.shares.order(claims).map(({ request }) => request);
    return this.queue;
  }

  /** Prompt tokens of those. */
  get waitingTokens(): number {
    return this.waiting().reduce((sum, { prepared }) => sum + prepared.promptIds.length, 0);
  }

  /**
   * Requests take what they need of pictures, all or nothing and in order: none that waits for room is passed by
   * another one that would take it.
   */
  holdImages(images: ImageStore): void {
    let room = true;
    for (const request of this.waiting()) {
      if (request.images !== undefined) continue;
      const { prepared } = request;
      if (!room && prepared.tiles.length > 0) continue;
      const held = images.hold(prepared, request.acceptedMs);
      room &&= held !== undefined;
      if (held === undefined) continue;
      request.images = held.images;
      this.countImages(held.counts);
    }
  }

  private countImages({ tiles, streams }: ImageCounts): void {
    const { metrics } = this;
    metrics.embeddingQueries.inc(tiles.asked);
    metrics.embeddingHits.inc(tiles.found);
    metrics.streamQueries.inc(streams.asked);
    metrics.streamHits.inc(streams.found);
  }

  withImages(): { prepared: PreparedRequest; images: RequestImages }[] {
    return this.waiting().flatMap(({ prepared, images }) =>
      images === undefined || prepared.tiles.length === 0 ? [] : [{ prepared, images }],
    );
  }

  /**
   * Takes the requests that can begin now off the queue: their pictures are on the workers, in order, and no more at
   * once than what the next plan can open on the ranks.
   */
  begin(images: ImageStore, { maxSequences }: IntakeRoom): ActiveRequest[] {
    const begun: ActiveRequest[] = [];
    const waiting = this.waiting();
    if (waiting.length === 0) return begun;
    let unopened = this.unopenedBytes();
    let reserved = [...this.requests].reduce((sum, one) => sum + one.reserved, 0);
    for (const request of waiting) {
      const { prepared, images: held } = request;
      if (held === undefined || !images.ready(prepared, held)) continue;
      const bytes = prepared.choiceCount * openedBytes(prepared);
      if (unopened > 0 && unopened + bytes > MAX_OPENED_BYTES) break;
      // One alone may be more than the warm-up found good: its choices take turns.
      if (reserved > 0 && reserved + prepared.choiceCount > maxSequences) break;
      unopened += bytes;
      reserved += prepared.choiceCount;
      begun.push(request);
    }
    this.leave(begun);
    return begun;
  }

  private leave(begun: ActiveRequest[]): void {
    let claims = this.waiting().map(({ claim }) => claim);
    for (const request of begun) {
      const claim = claims.find((one) => one.request === request);
      if (claim !== undefined) this.shares.served(claim, claims);
      claims = claims.filter((one) => one.request !== request);
    }
    if (begun.length > 0) this.queue = undefined;
  }

  /** Of what sequences that no plan has named yet will add to one. */
  private unopenedBytes(): number {
    return [...this.requests]
      .flatMap((request) => request.sequences)
      .filter((sequence) => !sequence.opened)
      .reduce((sum, { request }) => sum + openedBytes(request.prepared), 0);
  }
}
