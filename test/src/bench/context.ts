/** What every group is given. A group is one file that exports a function from this to figures. */
import type { Figure } from "./figure.js";

export interface BenchContext {
  /** Of interleaved measurements; medians are taken over them. */
  rounds: number;
  /** Names of models to measure; see models.ts. */
  models: string[];
  /** Of the groups that ran before, in this run. */
  figures: readonly Figure[];
  /** A line of progress. */
  log: (text: string) => void;
}

export type Group = (context: BenchContext) => Promise<Figure[]>;
