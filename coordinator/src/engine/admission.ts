/**
 * Requests accepted and not ended: their ids, what they may hold and wait for, and how many decode pictures at once. A
 * place is taken before a picture is decoded. Pure but for the promises.
 */
import assert from "node:assert/strict";
import { ServeError } from "@tessera/proto";
import type { TenantPolicy } from "../access/caller.js";
import type { ActiveRequest } from "./active.js";
import { RateMeter } from "./rate-meter.js";
import { TenantQuotas } from "./tenant-quotas.js";

export interface AdmissionLimits {
  /** Requests that run or wait. */
  maxRequests: number;
  /** Prompt tokens of those that have not begun; a prompt longer than that waits alone. */
  maxQueuedTokens: number;
  /** Pixels of their tiles, held until they end. */
  maxTileBytes: number;
  /** Requests whose pictures are decoded and cut at once; the others wait for their turn. */
  maxPreparing: number;
}

/** Ids are a tenant's own. */
export interface RequestName {
  id: string;
  tenant: string;
}

/** What a request takes up; before its pictures are decoded, the most that it can. */
export interface RequestCost {
  promptTokens: number;
  tileBytes: number;
}

export interface Entering extends RequestName {
  policy: TenantPolicy;
  images: number;
  signal: AbortSignal;
}

export function keyOf({ id, tenant }: RequestName): string {
  return `${id} ${tenant}`;
}

/** One request's place. It is given back by `leave`. */
export class Admitted {
  active: ActiveRequest | undefined;
  /** Its prompt is among those that wait. */
  waits = true;
  private readonly own = new AbortController();
  /**
   * Its call's, and that of `abort`. Not of AbortSignal.any: Node keeps such a signal, and all that its listeners hold,
   * as long as one listens.
   */
  readonly signal: AbortSignal = this.own.signal;
  private readonly follow = () => this.own.abort(this.of.signal.reason);

  constructor(
    readonly of: Entering,
    public cost: RequestCost,
  ) {
    if (of.signal.aborted) this.follow();
    else of.signal.addEventListener("abort", this.follow, { once: true });
  }
  get id(): string {
    return this.of.id;
  }
  get tenant(): string {
    return this.of.tenant;
  }
  /** Ends the preparation of a request that does not run yet. */
  abort(reason: ServeError): void {
    this.own.abort(reason);
  }
  /** Its call is followed no more. */
  close(): void {
    this.of.signal.removeEventListener("abort", this.follow);
  }
}

export class Admission {
  private readonly admitted = new Map<string, Admitted>();
  private readonly quotas = new TenantQuotas();
  private readonly ended = new RateMeter();
  private readonly begunTokens = new RateMeter();
  private tileBytes = 0;
  private queued = 0;
  private preparing = 0;
  /** Wakes of requests that wait for their turn to prepare; at most `maxRequests`. */
  private readonly turns: (() => void)[] = [];

  constructor(
    private readonly limits: AdmissionLimits,
    private readonly nowMs: () => number,
  ) {}

  get size(): number {
    return this.admitted.size;
  }
  /** Prompt tokens that wait; of requests under preparation the most that they can become. */
  get queuedTokens(): number {
    return this.queued;
  }

  /**
   * A place for a request, with the most that it can take up.
   * @throws ServeError REQUEST_EXISTS; OVERLOADED with the quota that is used up; INVALID_ARGUMENT for what no waiting
   * makes possible
   */
  enter(of: Entering, cost: RequestCost): Admitted {
    const key = keyOf(of);
    if (this.admitted.has(key))
      throw ServeError.field("request_id", `${JSON.stringify(of.id)} is running`, "REQUEST_EXISTS");
    const { images: most = Infinity } = of.policy.limits;
    if (of.images > most)
      throw ServeError.field(
        "messages",
        `have ${of.images} images, ${of.tenant} may have ${most} at once`,
      );
    const refusal = this.refusal(of, cost);
    if (refusal !== undefined) throw refusal;
    const place = new Admitted(of, cost);
    this.admitted.set(key, place);
    this.tileBytes += cost.tileBytes;
    this.queued += cost.promptTokens;
    this.quotas.enter(of.tenant, of.policy, { images: of.images, nowMs: this.nowMs() });
    this.use(of, cost.promptTokens);
    this.noteWork();
    return place;
  }

  private refusal(of: Entering, { promptTokens, tileBytes }: RequestCost): ServeError | undefined {
    const { maxRequests, maxQueuedTokens, maxTileBytes } = this.limits;
    const nowMs = this.nowMs();
    const overloaded = (quota: string, message: string, retryDelayMs: number) =>
      new ServeError("OVERLOADED", message, { quota, retryDelayMs });
    const own = this.quotas.refusal(of.tenant, of.policy, { images: of.images, nowMs });
    const slotMs = this.ended.delayMs(1, nowMs);
    if (own !== undefined) return overloaded(own.quota, own.message, own.retryDelayMs ?? slotMs);
    if (this.admitted.size >= maxRequests)
      return overloaded(
        "requests",
        `${this.admitted.size} requests run or wait, limit ${maxRequests}`,
        slotMs,
      );
    const over = this.queued + promptTokens - maxQueuedTokens;
    if (over > 0 && this.queued > 0)
      return overloaded(
        "queued tokens",
        `a prompt of up to ${promptTokens} tokens beside ${this.queued} that wait, limit ${maxQueuedTokens}`,
        this.begunTokens.delayMs(over, nowMs),
      );
    if (this.tileBytes + tileBytes > maxTileBytes)
      return overloaded(
        "tile bytes",
        `pictures of ${tileBytes} bytes beside ${this.tileBytes} of other requests, limit ${maxTileBytes}`,
        slotMs,
      );
    return undefined;
  }

  /** What the request really takes up, at most what was asked for. */
  settle(place: Admitted, cost: RequestCost): void {
    this.tileBytes += cost.tileBytes - place.cost.tileBytes;
    const more = cost.promptTokens - place.cost.promptTokens;
    if (place.waits) this.queued += more;
    this.use(place.of, more);
    place.cost = cost;
    this.noteWork();
  }

  /** Its prompt waits no more: it is computed now, or never. */
  begun(place: Admitted): void {
    if (!place.waits) return;
    place.waits = false;
    this.queued -= place.cost.promptTokens;
    this.begunTokens.add(place.cost.promptTokens, this.nowMs());
    this.noteWork();
  }

  /** Tokens were made for it; those of its prompt count from the moment it enters. */
  used({ of }: Admitted, tokens: number): void {
    this.use(of, tokens);
  }
  private use({ tenant, policy }: Entering, tokens: number): void {
    this.quotas.use(tenant, policy, { tokens, nowMs: this.nowMs() });
  }

  private noteWork(): void {
    const nowMs = this.nowMs();
    this.ended.work(this.admitted.size > 0, nowMs);
    this.begunTokens.work(this.queued > 0, nowMs);
  }

  leave(place: Admitted): void {
    const { of, cost } = place;
    // Another one may have its id by now.
    if (this.admitted.get(keyOf(of)) !== place) return;
    this.admitted.delete(keyOf(of));
    place.close();
    if (place.waits) {
      this.queued -= cost.promptTokens;
      // Its prompt was not computed.
      this.use(of, -cost.promptTokens);
    }
    place.waits = false;
    this.tileBytes -= cost.tileBytes;
    this.ended.add(1, this.nowMs());
    this.quotas.leave(of.tenant, of.policy, { images: of.images, nowMs: this.nowMs() });
    this.noteWork();
  }

  /** @throws AssertionError when what is noted is not the sum of what places take up. */
  audit(): void {
    const all = this.all();
    const sum = (of: (place: Admitted) => number) => all.reduce((s, place) => s + of(place), 0);
    const waiting = sum(({ waits, cost }) => (waits ? cost.promptTokens : 0));
    assert.equal(this.queued, waiting, "queued tokens");
    assert.equal(
      this.tileBytes,
      sum(({ cost }) => cost.tileBytes),
      "bytes of tiles",
    );
    assert(this.turns.length <= all.length, "places that wait for a turn are gone");
    this.quotas.audit(all.map(({ of }) => of));
  }

  get(of: RequestName): Admitted | undefined {
    return this.admitted.get(keyOf(of));
  }
  all(): Admitted[] {
    return [...this.admitted.values()];
  }

  /** Runs `work` when fewer than `maxPreparing` others do. @throws the signal's reason while it waits */
  async prepare<T>(place: Admitted, work: () => Promise<T>): Promise<T> {
    if (this.preparing >= this.limits.maxPreparing) await this.turn(place.signal);
    else this.preparing++;
    try {
      return await work();
    } finally {
      // A waiting request takes the turn over; else it is free.
      const next = this.turns.shift();
      if (next === undefined) this.preparing--;
      else next();
    }
  }

  private turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const wake = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.turns.splice(this.turns.indexOf(wake), 1);
        reject(signal.reason as Error);
      };
      this.turns.push(wake);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
