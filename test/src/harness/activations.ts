/** Whole tensors of a golden `activations.safetensors`. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

export interface Tensor {
  shape: number[];
  values: Float32Array;
}

/** F32 tensors by name; of other types there are only pixels, which are not read. */
export async function readActivations(path: string): Promise<Map<string, Tensor>> {
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8")) as Record<
    string,
    Entry
  >;
  const data = bytes.subarray(8 + length);
  const floats = Object.entries(header).filter(([, entry]) => entry.dtype === "F32");
  return new Map(
    floats.map(
      ([
        name,
        {
          shape,
          data_offsets: [begin, end],
        },
      ]) => {
        const copy = Uint8Array.from(data.subarray(begin, end));
        return [name, { shape, values: new Float32Array(copy.buffer) }];
      },
    ),
  );
}

/** Every value within `tolerance`, absolute; a NaN is a mismatch. */
export function assertNear(
  got: Float32Array | undefined,
  want: Float32Array | undefined,
  { tolerance, what }: { tolerance: number; what: string },
): void {
  assert.ok(got !== undefined && want !== undefined, `${what}: missing`);
  assert.equal(got.length, want.length, what);
  const worst = want.findIndex((value, i) => !(Math.abs(value - (got[i] ?? NaN)) <= tolerance));
  const seen = `${what}[${worst}]: ${got[worst]} for ${want[worst]}, tolerance ${tolerance}`;
  assert.equal(worst, -1, seen);
}
