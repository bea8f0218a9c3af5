/** Why a picture gets its grid: what `chooseGrid` compared. */
import { chooseGrid, grids, patchCount, type Grid, type TilingOptions } from "./tiling.js";

const NEAR = 5;

export interface GridCandidate extends Grid {
  ratio: number;
  /** Of its ratio from the picture's. */
  distance: number;
  chosen: boolean;
  /** On a tie with a smaller grid the picture must have more pixels than this. */
  tiePixels: number;
}

export interface GridChoice {
  width: number;
  height: number;
  ratio: number;
  /** The chosen one first, then by distance and tiles; at most five. */
  candidates: GridCandidate[];
  /** Tiles, the thumbnail counted. */
  patches: number;
}

export function explainGrid(
  { width, height }: { width: number; height: number },
  options: TilingOptions,
): GridChoice {
  const chosen = chooseGrid({ width, height }, options);
  const ratio = width / height;
  const candidates = grids(options.maxTiles)
    .map(({ columns, rows }): GridCandidate => ({
      columns,
      rows,
      ratio: columns / rows,
      distance: Math.abs(ratio - columns / rows),
      chosen: columns === chosen.columns && rows === chosen.rows,
      tiePixels: 0.5 * options.tileSize ** 2 * columns * rows,
    }))
    .sort(
      (a, b) =>
        Number(b.chosen) - Number(a.chosen) ||
        a.distance - b.distance ||
        a.columns * a.rows - b.columns * b.rows,
    );
  const patches = patchCount(chosen, options.useThumbnail);
  return { width, height, ratio, candidates: candidates.slice(0, NEAR), patches };
}
