import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runProgram } from "./probe.js";

/** What the engine makes of f32 values stored as weights: each comes out as one output of a linear of 1 · weight. */
export async function roundWeights(values: Float32Array): Promise<Float32Array> {
  const folder = await mkdtemp(join(tmpdir(), "tessera-rounding-"));
  const path = join(folder, "weights");
  const count = values.length;
  const stored = new Float32Array(3 * count);
  values.forEach((value, i) => (stored[3 * i] = value));
  await writeFile(path, new Uint8Array(stored.buffer));
  const piece = { tensor: "w", rowStart: 0, rowCount: count, colStart: 0, colCount: 3 };
  try {
    const captured = await runProgram({
      tensors: { w: { path, offset: 0, bytes: 12 * count, dtype: "F32", rows: count, cols: 3 } },
      tileSize: 1,
      pixels: Float32Array.of(1, 0, 0),
      capture: ["out"],
      encode: {
        buffers: [
          { name: "pixels", per: "tile", rows: 1, width: 3 },
          { name: "out", per: "tile", rows: 1, width: count },
        ],
        weights: [
          {
            kind: "linear",
            name: "w",
            outputs: count,
            inputs: 3,
            pieces: [piece],
            laneStarts: [0, 3],
            zeros: [],
          },
        ],
        segments: [
          {
            ops: [
              { op: "patchify", out: 0, tileSize: 1, patchSize: 1 },
              {
                op: "linear",
                x: 0,
                out: 1,
                weight: 0,
                epilogue: "none",
                partial: false,
                label: "out",
              },
            ],
            collective: null,
          },
        ],
      },
    });
    return captured["out"] ?? new Float32Array(0);
  } finally {
    await rm(folder, { recursive: true });
  }
}
