/** So many at once; the others wait in turn. */

export class Slots {
  private free: number;
  private readonly waiting: (() => void)[] = [];

  /** Who waits is bounded by the callers. */
  constructor(readonly count: number) {
    this.free = count;
  }

  /** → gives the slot back, once. @throws the signal's reason */
  async take(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.free > 0) this.free--;
    else await this.turn(signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const next = this.waiting.shift();
      if (next === undefined) this.free++;
      else next();
    };
  }

  private turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.waiting.splice(this.waiting.indexOf(wake), 1);
        reject(signal.reason as Error);
      };
      this.waiting.push(wake);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
