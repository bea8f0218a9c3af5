/** How late the event loop is. */
import { monitorEventLoopDelay } from "node:perf_hooks";

const RESOLUTION_MS = 10;

export class EventLoopLag {
  private readonly histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor() {
    this.histogram.enable();
  }

  /** Seconds that 99 % of the timers since the last call were late at most; 0 before the first. */
  takeP99(): number {
    const { count } = this.histogram;
    const seconds = count === 0 ? 0 : this.histogram.percentile(99) / 1e9;
    this.histogram.reset();
    return Math.max(0, seconds - RESOLUTION_MS / 1e3);
  }

  close(): void {
    this.histogram.disable();
  }
}
