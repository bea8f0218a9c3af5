/** Times of one request's stream as its client sees them. */

/** Of one answer; undefined: its server did not say. */
export interface Usage {
  promptTokens: number | undefined;
  completionTokens: number | undefined;
  cachedTokens: number | undefined;
}

export interface StreamTimes {
  /** Start → first token; undefined: none came. */
  ttftMs: number | undefined;
  /** Start → last token. */
  lastMs: number | undefined;
  /** Between tokens; where the tokens of a chunk are not known, between chunks. */
  gapsMs: readonly number[];
  chunkCount: number;
  /** Undefined: some chunk's count is not known. */
  tokenCount: number | undefined;
}

export class StreamTimer {
  private firstAt: number | undefined;
  private lastAt: number | undefined;
  private chunkCount = 0;
  private tokenCount: number | undefined = 0;
  private readonly gapsMs: number[] = [];

  /** `now` and `startAt` are of one clock, in milliseconds. */
  constructor(
    private readonly startAt: number,
    readonly now: () => number,
  ) {}

  /**
   * A piece of the answer came. The gap before a chunk of k tokens counts as k gaps of its k-th part; before those of
   * the first chunk there is none.
   */
  addChunk(at: number, tokenCount: number | undefined): void {
    if (tokenCount === 0) return;
    this.chunkCount++;
    if (tokenCount === undefined) this.tokenCount = undefined;
    else if (this.tokenCount !== undefined) this.tokenCount += tokenCount;
    const last = this.lastAt;
    this.lastAt = at;
    if (last === undefined) {
      this.firstAt = at;
      return;
    }
    const parts = tokenCount ?? 1;
    for (let i = 0; i < parts; i++) this.gapsMs.push((at - last) / parts);
  }

  get times(): StreamTimes {
    const since = (at: number | undefined) => (at === undefined ? undefined : at - this.startAt);
    return {
      ttftMs: since(this.firstAt),
      lastMs: since(this.lastAt),
      gapsMs: this.gapsMs,
      chunkCount: this.chunkCount,
      tokenCount: this.tokenCount,
    };
  }
}
