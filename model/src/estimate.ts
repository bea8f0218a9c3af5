/** What a program costs, derived from its ops: bytes of weights, of workspace, and sent in a step. */
import type { CacheShape, Program, WeightSpec } from "./program.js";

/** Tokens, or rows of an image's stream, in a block of a cache. */
export const BLOCK_TOKENS = 32;
export const KV_TYPES = ["f32", "bf16", "int8"] as const;
export type KvType = (typeof KV_TYPES)[number];

/** As native/ops/ops.h: a linear's panels hold this many outputs, the last one padded. */
const PANEL_OUTPUTS = 64;
/** As native/program/memory_plan.cc: buffers are whole lines of 16 values. */
const LINE = 16;
/** As native/collective/all_reduce.h: up to here a partial goes to every rank, beyond to owners of ranges. */
export const DIRECT_BYTES = 64 << 10;

export function weightBytes(weights: WeightSpec[]): number {
  return weights.reduce((sum, weight) => {
    if (weight.kind === "vector") return sum + 4 * weight.length;
    if (weight.kind === "table") return sum + 2 * weight.rows * weight.width;
    const outputs = Math.ceil(weight.outputs / PANEL_OUTPUTS) * PANEL_OUTPUTS;
    return sum + 2 * outputs * weight.inputs;
  }, 0);
}

/** One head's keys, or values, of one token; int8 with its scale in f32. As native/ops/ops.h. */
function headBytes(headDim: number, kvType: KvType): number {
  if (kvType === "int8") return headDim + 4;
  return headDim * (kvType === "bf16" ? 2 : 4);
}

/** Keys and values of one token, or row of a stream, in all layers. */
export function cacheRowBytes({ layers, kvHeads, headDim }: CacheShape, kvType: KvType): number {
  return layers * 2 * kvHeads * headBytes(headDim, kvType);
}

/** Items a buffer is made for. */
export interface Items {
  token: number;
  wanted: number;
  tile: number;
  stream: number;
}

interface Life {
  first: number;
  last: number;
  /** f32 values. */
  elements: number;
}

/** First and last op of each buffer, collectives counted as ops. */
function lives(program: Program, items: Items): Life[] {
  const out = program.buffers.map(({ per, rows, width }): Life => {
    const elements = Math.ceil((items[per] * rows * width) / LINE) * LINE;
    return { first: -1, last: -1, elements };
  });
  let at = 0;
  const touch = (id: number | undefined) => {
    const life = id === undefined ? undefined : out[id];
    if (life === undefined) return;
    if (life.first < 0) life.first = at;
    life.last = at;
  };
  for (const { ops, collective } of program.segments) {
    for (const op of ops) {
      const ids: Partial<Record<"x" | "out" | "h" | "y" | "qkv" | "logits" | "sums", number>> = op;
      for (const id of [ids.x, ids.out, ids.h, ids.y, ids.qkv, ids.logits, ids.sums]) touch(id);
      at++;
    }
    if (collective === null) continue;
    touch(collective.buffer);
    at++;
  }
  return out;
}

/** Bytes of the workspace, laid out as native/program/memory_plan.cc does: the largest first, each at the first gap. */
export function workspaceBytes(program: Program, items: Items): number {
  const placed: (Life & { offset: number })[] = [];
  for (const life of lives(program, items).sort((a, b) => b.elements - a.elements)) {
    let offset = 0;
    for (const other of placed.sort((a, b) => a.offset - b.offset)) {
      if (life.first > other.last || other.first > life.last) continue;
      if (offset + life.elements <= other.offset) break;
      offset = Math.max(offset, other.offset + other.elements);
    }
    placed.push({ ...life, offset });
  }
  return 4 * Math.max(0, ...placed.map(({ offset, elements }) => offset + elements));
}

/** Bytes that all ranks together send for `rows` tokens (an encode: tiles), headers of frames not counted. */
export function exchangeBytes(
  program: Program,
  { size, rows, wireType }: { size: number; rows: number; wireType: "f32" | "bf16" },
): number {
  const wire = wireType === "bf16" ? 2 : 4;
  return program.segments.reduce((sum, { collective }) => {
    if (collective === null) return sum;
    const buffer = program.buffers[collective.buffer];
    const values = rows * (buffer?.rows ?? 0) * (buffer?.width ?? 0);
    const direct = 4 * values <= DIRECT_BYTES;
    // To all: every partial to each peer. By owners: partials once to their owners, f32 sums once to each peer.
    const bytes = direct ? wire * values * size : (wire + 4) * values;
    return sum + bytes * (size - 1);
  }, 0);
}
