/** Requests accepted and not ended: their ids, the bytes of their tiles, and how many decode pictures at once. */
import { ServeError } from "@tessera/proto";
import type { ActiveRequest } from "./active.js";

export interface AdmissionLimits {
  /** Requests that run or wait. */
  maxRequests: number;
  /** Pixels of their tiles, held until they end. */
  maxTileBytes: number;
  /** Requests whose pictures are decoded and cut at once; the others wait for their turn. */
  maxPreparing: number;
}

const RETRY_DELAY_MS = 1000;

function overloaded(quota: string, message: string): ServeError {
  return new ServeError("OVERLOADED", message, { quota, retryDelayMs: RETRY_DELAY_MS });
}

/** Ids are a tenant's own. */
export interface RequestName {
  id: string;
  tenant: string;
}

function keyOf({ id, tenant }: RequestName): string {
  return `${id} ${tenant}`;
}

/** One request's place. It is given back by `leave`. */
export class Admitted {
  active: ActiveRequest | undefined;
  private readonly own = new AbortController();
  readonly signal: AbortSignal;

  readonly id: string;
  readonly tenant: string;

  constructor(
    of: RequestName & { signal: AbortSignal },
    public tileBytes: number,
  ) {
    this.id = of.id;
    this.tenant = of.tenant;
    this.signal = AbortSignal.any([of.signal, this.own.signal]);
  }
  /** Ends the preparation of a request that does not run yet. */
  abort(reason: ServeError): void {
    this.own.abort(reason);
  }
}

export class Admission {
  private readonly admitted = new Map<string, Admitted>();
  private tileBytes = 0;
  private preparing = 0;
  /** Wakes of requests that wait for their turn to prepare; at most `maxRequests`. */
  private readonly turns: (() => void)[] = [];

  constructor(private readonly limits: AdmissionLimits) {}

  get size(): number {
    return this.admitted.size;
  }

  /**
   * A place for a request and `tileBytes` of pixels, the most its pictures can become.
   * @throws ServeError REQUEST_EXISTS; OVERLOADED with the quota that is used up
   */
  enter(of: RequestName & { signal: AbortSignal }, tileBytes: number): Admitted {
    const { maxRequests, maxTileBytes } = this.limits;
    const key = keyOf(of);
    if (this.admitted.has(key))
      throw ServeError.field("request_id", `${JSON.stringify(of.id)} is running`, "REQUEST_EXISTS");
    if (this.admitted.size >= maxRequests)
      throw overloaded(
        "requests",
        `${this.admitted.size} requests run or wait, limit ${maxRequests}`,
      );
    if (this.tileBytes + tileBytes > maxTileBytes)
      throw overloaded(
        "tile bytes",
        `pictures of ${tileBytes} bytes beside ${this.tileBytes} of other requests, limit ${maxTileBytes}`,
      );
    const place = new Admitted(of, tileBytes);
    this.admitted.set(key, place);
    this.tileBytes += tileBytes;
    return place;
  }

  /** The pictures became `tileBytes`, at most what was asked for. */
  settle(place: Admitted, tileBytes: number): void {
    this.tileBytes += tileBytes - place.tileBytes;
    place.tileBytes = tileBytes;
  }

  leave(place: Admitted): void {
    if (!this.admitted.delete(keyOf(place))) return;
    this.tileBytes -= place.tileBytes;
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
