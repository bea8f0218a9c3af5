/** Calls of one resumable stream: which address each goes to, and how long to wait before it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { AttemptOptions } from "./attempts.js";
import { TesseraError } from "./error.js";

/** Calls in succession that bring no event; with the times between them about 13 s. */
export const MAX_FRUITLESS_CALLS = 12;
const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 2000;

export interface StreamState {
  /** An event has come. */
  started: boolean;
  /** Nothing has come, or a token to ask for the rest with. */
  resumable: boolean;
}

export class Reconnects {
  /** Calls since the last event that failed. */
  private fruitless = 0;
  private index: number;
  /** Addresses where the stream is not kept. */
  private readonly strangers = new Set<number>();

  constructor(private readonly options: AttemptOptions) {
    this.index = options.firstAddress;
  }

  /** Index of the address of the next call, or of the one under way. */
  get address(): number {
    return this.index;
  }

  /** @throws TesseraError ABORTED */
  checkSignal(): void {
    const { signal } = this.options;
    if (signal?.aborted === true) throw TesseraError.aborted(signal);
  }

  /** An event has come. */
  progressed(): void {
    this.fruitless = 0;
    this.strangers.clear();
  }

  /** Returns when the stream may be asked for again. @throws TesseraError as `decide`; ABORTED */
  async afterFailure(error: unknown, state: StreamState): Promise<void> {
    this.checkSignal();
    const failure = TesseraError.from(error);
    await this.wait(this.decide(failure, state), failure);
  }

  /**
   * Milliseconds to wait: none after the first failure, then doubling ones, or what the server said. The first call
   * again goes to the same address, which has the stream; later ones to the next. @throws TesseraError the failure
   * itself when asking again does not help
   */
  decide(failure: TesseraError, { started, resumable }: StreamState): number {
    if (!resumable || !this.maySucceed(failure, started)) throw failure;
    if (++this.fruitless >= MAX_FRUITLESS_CALLS) throw failure;
    if (this.fruitless > 1 || !failure.cut)
      this.index = (this.index + 1) % this.options.addressCount;
    const { retryDelayMs = 0 } = failure;
    if (this.fruitless === 1) return retryDelayMs;
    const backoffMs = FIRST_BACKOFF_MS * 2 ** (this.fruitless - 2);
    return Math.max(retryDelayMs, Math.min(MAX_BACKOFF_MS, backoffMs));
  }

  private maySucceed(failure: TesseraError, started: boolean): boolean {
    if (failure.cut) return true;
    if (!started) return failure.movable;
    // Another address may be the one that keeps the stream.
    if (failure.code !== "REQUEST_NOT_FOUND") return false;
    this.strangers.add(this.index);
    return this.strangers.size < this.options.addressCount;
  }

  private async wait(delayMs: number, failure: TesseraError): Promise<void> {
    const { signal, deadlineMs } = this.options;
    if (Date.now() + delayMs >= deadlineMs) throw failure;
    if (delayMs === 0) return;
    try {
      await sleep(delayMs, undefined, signal === undefined ? {} : { signal });
    } catch {
      throw signal === undefined ? failure : TesseraError.aborted(signal);
    }
  }
}
