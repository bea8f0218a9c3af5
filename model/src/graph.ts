/** A small builder: architectures write ops in order, it numbers buffers and weights and ends segments. */
import type {
  BufferId,
  BufferSpec,
  Op,
  Program,
  Segment,
  TensorPiece,
  WeightId,
  WeightSpec,
  WeightType,
} from "./program.js";

/** A whole stored tensor as [rows × cols]. */
export function whole(tensor: string, rows: number, cols = 1): TensorPiece {
  return { tensor, rowStart: 0, rowCount: rows, colStart: 0, colCount: cols };
}

export class Graph {
  private readonly buffers: BufferSpec[] = [];
  private readonly segments: Segment[] = [];
  private ops: Op[] = [];

  /** Programs that share weights are given the same list. */
  constructor(private readonly weights: WeightSpec[] = []) {}

  buffer(name: string, per: BufferSpec["per"], width: number, rows = 1): BufferId {
    return this.buffers.push({ name, per, rows, width }) - 1;
  }

  op(op: Op): void {
    this.ops.push(op);
  }

  weight(spec: WeightSpec): WeightId {
    return this.weights.push(spec) - 1;
  }

  vector(name: string, pieces: TensorPiece[], zeros: TensorPiece[] = []): WeightId {
    const length = pieces.reduce((sum, piece) => sum + piece.rowCount * piece.colCount, 0);
    return this.weight({ kind: "vector", name, length, pieces, zeros });
  }

  /** `laneStarts` absent: one lane; `type` absent: bf16. */
  linear(
    name: string,
    pieces: TensorPiece[],
    options: { laneStarts?: number[]; zeros?: TensorPiece[]; type?: WeightType | undefined } = {},
  ): WeightId {
    const inputs = pieces[0]?.colCount ?? 0;
    const outputs = pieces.reduce((sum, piece) => sum + piece.rowCount, 0);
    const laneStarts = options.laneStarts ?? [0, inputs];
    const zeros = options.zeros ?? [];
    const { type = "bf16" } = options;
    const quantised = type === "bf16" ? {} : { type };
    return this.weight({
      kind: "linear",
      name,
      outputs,
      inputs,
      pieces,
      laneStarts,
      zeros,
      ...quantised,
    });
  }

  allReduceAdd(buffer: BufferId, onSight: { onSight?: true } = {}): void {
    this.segments.push({ ops: this.ops, collective: { op: "all_reduce_add", buffer, ...onSight } });
    this.ops = [];
  }

  finish(): Program {
    this.segments.push({ ops: this.ops, collective: null });
    return { buffers: this.buffers, weights: this.weights, segments: this.segments };
  }
}
