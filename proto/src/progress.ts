/** Forward progress of a process: what its liveness is judged by. */

/** Work in flight, each piece with its bound. Times are milliseconds of one clock. */
export class Progress {
  private readonly inFlight = new Map<number, { sinceMs: number; boundMs: number }>();
  private nextId = 0;
  private lastEndMs = -Infinity;

  constructor(private readonly nowMs: () => number = () => performance.now()) {}

  get busy(): boolean {
    return this.inFlight.size > 0;
  }

  /** Call what is returned when the work has ended, well or not. `boundMs`: longest time without any end. */
  begin(boundMs: number): () => void {
    const id = this.nextId++;
    this.inFlight.set(id, { sinceMs: this.nowMs(), boundMs });
    return () => {
      this.inFlight.delete(id);
      this.lastEndMs = this.nowMs();
    };
  }

  async track<T>(boundMs: number, work: () => Promise<T>): Promise<T> {
    const end = this.begin(boundMs);
    try {
      return await work();
    } finally {
      end();
    }
  }

  /** False when a piece of work has been in flight for longer than its bound and nothing else has ended meanwhile. */
  get moving(): boolean {
    const now = this.nowMs();
    return [...this.inFlight.values()].every(
      ({ sinceMs, boundMs }) => now - Math.max(sinceMs, this.lastEndMs) <= boundMs,
    );
  }
}
