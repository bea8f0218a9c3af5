/** How much passes a second of busy time, from the last events. Pure. */

const EVENTS = 256;
const DEFAULT_DELAY_MS = 1000;
const MIN_DELAY_MS = 50;
const MAX_DELAY_MS = 60_000;

export class RateMeter {
  private readonly events: { atMs: number; amount: number }[] = [];
  private idleSinceMs: number | undefined;

  add(amount: number, nowMs: number): void {
    this.events.push({ atMs: nowMs, amount });
    if (this.events.length > EVENTS) this.events.shift();
  }

  /** Whether there is anything that could pass: time without it says nothing of the rate. */
  work(is: boolean, nowMs: number): void {
    if (!is) this.idleSinceMs ??= nowMs;
    else if (this.idleSinceMs !== undefined) {
      for (const event of this.events) event.atMs += nowMs - this.idleSinceMs;
      this.idleSinceMs = undefined;
    }
  }

  /** After how long `amount` will have passed, as far as one can tell. */
  delayMs(amount: number, nowMs: number): number {
    const [first] = this.events;
    if (first === undefined || this.events.length < 2) return DEFAULT_DELAY_MS;
    // What the first brought had passed before the time that is looked at.
    const passed = this.events.slice(1).reduce((sum, event) => sum + event.amount, 0);
    const delay = (amount * Math.max(1, nowMs - first.atMs)) / Math.max(passed, 1e-9);
    return Math.round(Math.min(MAX_DELAY_MS, Math.max(MIN_DELAY_MS, delay)));
  }
}
