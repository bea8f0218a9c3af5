/** Keeps an event loop polling instead of sleeping for a while, so that the next frame is not met by a sleeper. */
export class Spin {
  private untilMs = 0;
  private turning = false;

  /** `us`: how long after the last touch; 0 never spins. */
  constructor(private readonly us: number) {}

  /** A frame went out or came in: the next one is near. */
  touch(): void {
    if (this.us === 0) return;
    this.untilMs = performance.now() + this.us / 1e3;
    if (this.turning) return;
    this.turning = true;
    setImmediate(this.turn);
  }

  private readonly turn = (): void => {
    this.turning = performance.now() < this.untilMs;
    if (this.turning) setImmediate(this.turn);
  };
}
