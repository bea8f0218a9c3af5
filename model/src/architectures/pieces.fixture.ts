/** Whether pieces of stored tensors cover them, for tests of cuts. */
import assert from "node:assert/strict";
import type { Program, TensorPiece } from "../program.js";

/** Of all weights, those that must be zero included. */
export function pieces(program: Program): TensorPiece[] {
  return program.weights.flatMap((weight) =>
    weight.kind === "table" ? weight.pieces : [...weight.pieces, ...weight.zeros],
  );
}

export const values = (list: TensorPiece[]) =>
  list.reduce((sum, { rowCount, colCount }) => sum + rowCount * colCount, 0);

/** Rows × columns of a stored tensor as a piece sees it. */
function sides(shape: number[]): [number, number] {
  const [rows = 0, ...rest] = shape;
  return [rows, rest.reduce((product, n) => product * n, 1)];
}

function overlap(a: TensorPiece, b: TensorPiece): boolean {
  const apart = (start: number, count: number, other: number, otherCount: number) =>
    start + count <= other || other + otherCount <= start;
  return !(
    apart(a.rowStart, a.rowCount, b.rowStart, b.rowCount) ||
    apart(a.colStart, a.colCount, b.colStart, b.colCount)
  );
}

/** The pieces of one tensor tile it: inside, apart from each other, together as many values. */
export function assertTiled(list: TensorPiece[], shape: number[], name: string): void {
  const [rows, cols] = sides(shape);
  for (const piece of list) {
    assert.ok(piece.rowStart >= 0 && piece.rowStart + piece.rowCount <= rows, name);
    assert.ok(piece.colStart >= 0 && piece.colStart + piece.colCount <= cols, name);
  }
  const clash = list.some((a, i) => list.slice(i + 1).some((b) => overlap(a, b)));
  assert.ok(!clash, `${name}: pieces overlap`);
  assert.equal(values(list), rows * cols, name);
}
