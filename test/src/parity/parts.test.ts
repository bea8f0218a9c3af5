/**
 * Single parts of the real programs on the goldens' own inputs: the norms and the projector on small values, where a
 * wrong epsilon is off by 1 or more, and the pixel shuffle's index map. The input enters as a tile's pixels and an
 * identity matrix.
 */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openModel, rankProgram, type Op, type Program, type TensorSource } from "@tessera/model";
import { assertNear, readActivations } from "../harness/activations.js";
import { runProgram } from "../harness/probe.js";
import { root } from "../harness/paths.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-parts-"));
after(() => rm(folder, { recursive: true }));
const model = await openModel(root("test/goldens/checkpoint"));
const tensors = await model.tensors();
const full = rankProgram(model.config, { rank: 0, size: 1 });
const goldens = await readActivations(root("test/goldens/vit-block/activations.safetensors"));
const { small_inputs: small } = JSON.parse(
  await readFile(root("test/goldens/vit-block/vit-block.json"), "utf8"),
) as { small_inputs: { name: string; tolerance_f32: number }[] };

interface Probe {
  /** Patches a side of the one tile; each is an input row. */
  grid: number;
  width: number;
  /** Row-major [grid², width]. */
  input: Float32Array;
  /** Ops on `program`'s buffers; the first op of which reads the input. */
  program: Program;
  ops: Op[];
  inputBuffer: number;
}

/** A bf16 file of raw values. */
async function store(name: string, rows: number, cols: number, values: (at: number) => number) {
  const path = join(folder, name);
  const bytes = Buffer.alloc(2 * rows * cols);
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  for (let i = 0; i < rows * cols; i++) {
    value[0] = values(i);
    bytes.writeUInt16LE((bits[0] ?? 0) >>> 16, 2 * i);
  }
  await writeFile(path, bytes);
  return { path, offset: 0, bytes: bytes.length, dtype: "BF16" as const, rows, cols };
}

/** Pixels [3, s, s] whose patch r begins with row r of the input; the rest is zero. */
function pixelsOf({ grid, width, input }: Probe, patch: number): Float32Array {
  const side = grid * patch;
  const pixels = new Float32Array(3 * side * side);
  for (let r = 0; r < grid * grid; r++)
    for (let i = 0; i < width; i++) {
      const [channel, inside] = [Math.floor(i / patch ** 2), i % patch ** 2];
      const y = Math.floor(r / grid) * patch + Math.floor(inside / patch);
      const x = (r % grid) * patch + (inside % patch);
      pixels[(channel * side + y) * side + x] = input[r * width + i] ?? NaN;
    }
  return pixels;
}

/** The probe's ops behind a patchify and an identity matrix that bring its input in. */
function behindInput(probe: Probe, patch: number): Program {
  const { grid, width, program, inputBuffer } = probe;
  const [patches, weight, pixels] = [
    program.buffers.length,
    program.weights.length,
    3 * patch * patch,
  ];
  const piece = { tensor: "identity", rowStart: 0, rowCount: width, colStart: 0, colCount: pixels };
  const identity = { name: "identity", outputs: width, inputs: pixels, pieces: [piece] };
  const linear = {
    x: patches,
    out: inputBuffer,
    weight,
    epilogue: "none",
    partial: false,
  } as const;
  const ops: Op[] = [
    { op: "patchify", out: patches, tileSize: grid * patch, patchSize: patch },
    { op: "linear", ...linear, label: "input" },
    ...probe.ops,
  ];
  const buffers = program.buffers.map((buffer) => ({ ...buffer, per: "tile" as const }));
  return {
    buffers: [...buffers, { name: "patches", per: "tile", rows: grid * grid, width: pixels }],
    weights: [
      ...program.weights,
      { kind: "linear", ...identity, laneStarts: [0, pixels], zeros: [] },
    ],
    segments: [{ ops, collective: null }],
  };
}

async function run(probe: Probe, label: string, extra: Record<string, TensorSource> = {}) {
  const { grid, width } = probe;
  const patch = Math.ceil(Math.sqrt(width / 3));
  const pixels = 3 * patch * patch;
  const identity = await store(`identity-${width}-${grid}`, width, pixels, (at) =>
    Math.floor(at / pixels) === at % pixels ? 1 : 0,
  );
  const captured = await runProgram({
    encode: behindInput(probe, patch),
    tensors: { ...tensors, identity, ...extra },
    tileSize: grid * patch,
    pixels: pixelsOf(probe, patch),
    capture: ["input", label],
  });
  assert.deepEqual(captured["input"], probe.input, "the input reaches the part unchanged");
  return captured[label];
}

/** The ops of a program from the one labelled `first` to the one labelled `last`, on 4 rows. */
function partOf(whole: Program, first: string, last: string) {
  const ops = whole.segments.flatMap((segment) => segment.ops);
  const at = (label: string) => ops.findIndex((op) => op.label === label);
  const part = ops.slice(at(first), at(last) + 1);
  const head = part[0];
  assert.ok(head !== undefined && "x" in head);
  const buffers = whole.buffers.map((buffer) => ({ ...buffer, rows: 4 }));
  return { program: { ...whole, buffers }, ops: part, inputBuffer: head.x };
}

const parts: [string, Program, string, string][] = [
  ["vit.norm1", full.encode, "vit.norm1", "vit.norm1"],
  ["projector", full.encode, "projector.norm", "projector.output"],
  ["input_layernorm", full.step, "input_layernorm", "input_layernorm"],
];

test("the goldens' small inputs are those tested here", () => {
  assert.deepEqual(parts.map(([name]) => name).sort(), small.map(({ name }) => name).sort());
});

for (const [name, whole, first, last] of parts)
  test(`small.${name}: as the reference's, epsilon included`, async () => {
    const input = goldens.get(`small.${name}.input`);
    const tolerance = small.find((one) => one.name === name)?.tolerance_f32 ?? NaN;
    const values = input?.values ?? new Float32Array(0);
    const probe = { grid: 2, width: input?.shape[1] ?? 0, input: values };
    const got = await run({ ...probe, ...partOf(whole, first, last) }, last);
    const want = goldens.get(`small.${name}.output`)?.values;
    assertNear(got, want, { tolerance, what: `small.${name}` });
  });

interface ShuffleMap {
  grid: number;
  ps_version: "v1" | "v2";
  sources: number[][];
}
const { maps } = JSON.parse(
  await readFile(root("test/goldens/vit-block/pixel-shuffle.json"), "utf8"),
) as { maps: ShuffleMap[] };

/** Buffers and weights of assemble_patches and pixel_shuffle; class token and positions are zero. */
function shuffleProgram(grid: number, width: number): Program {
  const places = grid * grid + 1;
  const all = (tensor: string, rowCount: number, colCount: number) => [
    { tensor, rowStart: 0, rowCount, colStart: 0, colCount },
  ];
  const [classRows, positionRows] = [all("class", width, 1), all("position", places, width)];
  return {
    buffers: [
      { name: "rows", per: "tile", rows: grid * grid, width },
      { name: "places", per: "tile", rows: places, width },
      { name: "shuffled", per: "tile", rows: (grid * grid) / 4, width: 4 * width },
    ],
    weights: [
      { kind: "vector", name: "class", length: width, pieces: classRows, zeros: [] },
      { kind: "table", name: "position", rows: places, width, pieces: positionRows },
    ],
    segments: [],
  };
}

for (const { grid, ps_version: order, sources } of maps)
  test(`pixel shuffle ${order}, grid ${grid}: every output token has the reference's sources`, async () => {
    const width = 16;
    const input = Float32Array.from({ length: grid * grid * width }, (_, i) => i);
    const zeros = await store("zeros", grid * grid + 1, width, () => 0);
    const vector = { ...zeros, bytes: 2 * width, rows: width, cols: 1 };
    const program = shuffleProgram(grid, width);
    const ops: Op[] = [
      { op: "assemble_patches", x: 0, out: 1, classEmbedding: 0, position: 1 },
      { op: "pixel_shuffle", x: 1, out: 2, grid, order, label: "shuffled" },
    ];
    const extra = { class: vector, position: zeros };
    const got = await run({ grid, width, input, program, ops, inputBuffer: 0 }, "shuffled", extra);
    const want = sources.flat().flatMap((source) => {
      const at = source * width;
      return [...input.subarray(at, at + width)];
    });
    assert.deepEqual([...(got ?? [])], want);
  });
