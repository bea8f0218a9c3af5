/** How many drafts a step of one sequence tries: more where they come true, hardly any where they do not. Pure. */

/** Steps without drafts after the first failure; each further one doubles them. */
const FIRST_PAUSE = 2;
/** A text that nothing can be said about pays for one row more in so many steps. */
const LONGEST_PAUSE = 32;

export class DraftPace {
  private length = 1;
  private pause = 0;
  /** Steps left of a pause. */
  private left = 0;

  /** `most`: drafts of a step. */
  constructor(private readonly most: number) {}

  /** Of the next step; asked once for each. */
  next(): number {
    if (this.left === 0) return this.length;
    this.left--;
    return 0;
  }

  /** `drafts`: 1 at least. */
  tried(drafts: number, accepted: number): void {
    if (accepted === 0) {
      this.length = 1;
      this.pause = Math.min(LONGEST_PAUSE, Math.max(FIRST_PAUSE, 2 * this.pause));
      this.left = this.pause;
      return;
    }
    // One lucky draft does not make up for a row of failures.
    this.pause >>= 2;
    this.length = accepted < drafts ? accepted : Math.min(this.most, 2 * drafts);
  }
}
