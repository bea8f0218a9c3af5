/** Floating-point operations of a program, derived from its ops. */
import type { Items } from "./estimate.js";
import type { Op, Program } from "./program.js";

export interface Work extends Items {
  /** Over the tokens: rows of streams that each sees. */
  sights: number;
}

function opFlops(program: Program, op: Op, work: Work): number {
  const rowsOf = (buffer: number) => {
    const spec = program.buffers[buffer];
    return spec === undefined ? 0 : work[spec.per] * spec.rows;
  };
  if (op.op === "linear") {
    const weight = program.weights[op.weight];
    return weight?.kind === "linear" ? 2 * rowsOf(op.x) * weight.outputs * weight.inputs : 0;
  }
  if (op.op === "vision_attention") {
    const places = program.buffers[op.qkv]?.rows ?? 0;
    return 4 * op.heads * op.headDim * work.tile * places ** 2;
  }
  if (op.op === "attention") {
    const pairs = (work.token * (work.token + 1)) / 2;
    return 4 * op.heads * op.headDim * pairs;
  }
  return op.op === "cross_attention" ? 4 * op.heads * op.headDim * work.sights : 0;
}

/**
 * Two for each multiply-add of linears and of attention (q · k and p · v); norms, functions and additions are left out.
 * A linear: 2 · rows · outputs · inputs. Attention: 4 · heads · head_dim · pairs of a row and a row it sees, where
 * `work.token` tokens from position 0 see those at or before them, and each place of a tile sees all of its tile.
 */
export function programFlops(program: Program, work: Work): number {
  return program.segments
    .flatMap(({ ops }) => ops)
    .reduce((sum, op) => sum + opFlops(program, op, work), 0);
}
