/** Time as a load sees it; a test brings its own. */

export interface Clock {
  /** Milliseconds; rises. */
  now(): number;
  /** Resolves at that time or, at once, when it is past; early when the signal aborts. */
  until(atMs: number, signal: AbortSignal): Promise<void>;
}

/** setTimeout counts in 31 bits. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  until(atMs, signal) {
    const delayMs = Math.min(MAX_TIMER_MS, atMs - performance.now());
    // What is due now gives way to what has arrived in the meantime.
    if (delayMs <= 0) return new Promise((resolve) => setImmediate(resolve));
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, delayMs);
      signal.addEventListener("abort", done, { once: true });
    });
  },
};
