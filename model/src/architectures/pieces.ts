/** Rectangles of stored tensors that a rank holds. */
import type { TensorPiece, VisionPlacement, WeightType } from "../program.js";

export interface Cut {
  /** From `size` on: a rank that only encodes tiles. */
  rank: number;
  /** Ranks that hold the decoder. */
  size: number;
  /** Absent: replicate. */
  vision?: VisionPlacement;
  /** Of the decoder's linears; absent: bf16. */
  weights?: WeightType;
}

/** Rows [start, start + count) of a tensor with `cols` columns. */
export function rowsOf(
  tensor: string,
  range: { start: number; count: number },
  cols: number,
): TensorPiece {
  return { tensor, rowStart: range.start, rowCount: range.count, colStart: 0, colCount: cols };
}

/** Columns of a tensor with `rows` rows. */
export function columnsOf(
  tensor: string,
  range: { start: number; count: number },
  rows: number,
): TensorPiece {
  return { tensor, rowStart: 0, rowCount: rows, colStart: range.start, colCount: range.count };
}

export function scaled(range: { start: number; count: number }, by: number) {
  return { start: range.start * by, count: range.count * by };
}
