/**
 * How many tiles are given out at once. A rank does one job at a time, so that a step waits for the tiles before it:
 * while sequences run, a batch is kept so short that nobody sees their streams stop.
 */

/** What a batch may take of the running sequences' time, when nothing else is said. */
export const ENCODE_BUDGET_MS = 100;
/** Weight of the latest encode in the average. */
const LATEST = 0.3;

export class EncodePace {
  private msPerTile: number | undefined;

  /**
   * `maxTiles`: of one Encode a rank. `budgetMs`: of a batch beside steps. `unknownMs`: taken for a tile before one was
   * measured.
   */
  constructor(private readonly limits: { maxTiles: number; budgetMs: number; unknownMs: number }) {}

  /** A rank took `ms` for `tiles` tiles. */
  observe(tiles: number, ms: number): void {
    const latest = ms / tiles;
    this.msPerTile =
      this.msPerTile === undefined ? latest : this.msPerTile + LATEST * (latest - this.msPerTile);
  }

  /** Tiles a rank gets at once: one until a tile was measured, all it takes while nothing runs. */
  tilesPerRank(sequencesRun: boolean): number {
    if (this.msPerTile === undefined) return 1;
    if (!sequencesRun) return this.limits.maxTiles;
    const fit = Math.floor(this.limits.budgetMs / this.msPerTile);
    return Math.max(1, Math.min(fit, this.limits.maxTiles));
  }

  /** Milliseconds a rank will take for `tiles` tiles. */
  estimateMs(tiles: number): number {
    return Math.ceil(tiles * (this.msPerTile ?? this.limits.unknownMs));
  }
}
