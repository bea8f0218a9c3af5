/** Attempts of one call: which address each goes to, and how long to wait before it. */
import { setTimeout as sleep } from "node:timers/promises";
import { TesseraError } from "./error.js";

/** Attempts of a call, or one for each address when there are more. */
export const MAX_ATTEMPTS = 5;
const FIRST_BACKOFF_MS = 100;

export interface AttemptOptions {
  /** Of the first attempt, in 0 … addressCount − 1; each further one goes to the next. */
  firstAddress: number;
  addressCount: number;
  /** Undefined: MAX_ATTEMPTS, or one for each address when there are more. */
  maxAttempts?: number | undefined;
  /** By Date.now(). */
  deadlineMs: number;
  signal?: AbortSignal | undefined;
}

export class Attempts {
  private made = 0;
  constructor(readonly options: AttemptOptions) {}

  /** Index of the address to try now. @throws TesseraError ABORTED */
  next(): number {
    const { signal, firstAddress, addressCount } = this.options;
    if (signal?.aborted === true) throw TesseraError.aborted(signal);
    return (firstAddress + this.made++) % addressCount;
  }

  /**
   * Returns when the call may be tried again: at once while an address is left, later after what the server said, or
   * after doubling times. @throws TesseraError the failure itself when trying again does not help or has no time left;
   * ABORTED.
   */
  async afterFailure(error: unknown): Promise<void> {
    const { signal, addressCount, maxAttempts, deadlineMs } = this.options;
    if (signal?.aborted === true) throw TesseraError.aborted(signal);
    const failure = TesseraError.from(error);
    const most = maxAttempts ?? Math.max(MAX_ATTEMPTS, addressCount);
    const left = this.made < Math.min(addressCount, most);
    if (left && failure.movable) return;
    if (left || !failure.retryable || this.made >= most) throw failure;
    const delayMs = failure.retryDelayMs ?? FIRST_BACKOFF_MS * 2 ** (this.made - addressCount);
    if (Date.now() + delayMs >= deadlineMs) throw failure;
    try {
      await sleep(delayMs, undefined, signal === undefined ? {} : { signal });
    } catch {
      throw signal === undefined ? failure : TesseraError.aborted(signal);
    }
  }
}
