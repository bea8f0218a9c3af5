/** Safetensors headers, read and checked: every offset, shape and type, before a weight is touched. */
import { open } from "node:fs/promises";
import { ModelError } from "./errors.js";

/** Where a stored tensor lies. Offsets are absolute in the file. */
export interface TensorSource {
  path: string;
  offset: number;
  bytes: number;
  dtype: "BF16" | "F32" | "F16";
  rows: number;
  cols: number;
}

export interface StoredTensor extends TensorSource {
  shape: number[];
}

/** The format's own limit. */
export const MAX_HEADER_BYTES = 100_000_000;
const SIZES: Record<string, number> = { BF16: 2, F16: 2, F32: 4 };

async function readHeader(
  path: string,
): Promise<{ json: unknown; dataStart: number; size: number }> {
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new ModelError("BAD_MODEL", `${path}: cannot be opened`, cause);
  });
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(8);
    if (size < 8)
      throw new ModelError("BAD_MODEL", `${path}: ${size} bytes are no safetensors file`);
    await file.read(head, 0, 8, 0);
    const length = Number(head.readBigUInt64LE());
    if (length > MAX_HEADER_BYTES)
      throw new ModelError(
        "BAD_MODEL",
        `${path}: header of ${length} bytes, limit ${MAX_HEADER_BYTES}`,
      );
    if (8 + length > size)
      throw new ModelError("BAD_MODEL", `${path}: header of ${length} bytes in a file of ${size}`);
    const text = Buffer.alloc(length);
    await file.read(text, 0, length, 8);
    return { json: parseJson(text.toString("utf8"), path), dataStart: 8 + length, size };
  } finally {
    await file.close();
  }
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ModelError("BAD_MODEL", `${path}: the header is no JSON`, cause);
  }
}

interface DataRange {
  path: string;
  /** First byte after the header. */
  dataStart: number;
  /** Of the whole file. */
  size: number;
}

function isWholeList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
}

function parseEntry(name: string, entry: unknown, file: DataRange): StoredTensor {
  const fail = (why: string): never => {
    throw new ModelError("BAD_MODEL", `${file.path}: tensor ${name}: ${why}`);
  };
  if (typeof entry !== "object" || entry === null) return fail("its entry is no object");
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (!isWholeList(shape)) return fail(`shape ${JSON.stringify(shape)}`);
  if (!isWholeList(offsets) || offsets.length !== 2)
    return fail(`data_offsets ${JSON.stringify(offsets)}`);
  const size = SIZES[String(dtype)];
  if (size === undefined) return fail(`type ${String(dtype)} is not supported (BF16, F16, F32)`);
  const [begin = 0, end = 0] = offsets;
  const bytes = shape.reduce((product, n) => product * n, size);
  if (end - begin !== bytes)
    return fail(
      `${end - begin} bytes for shape [${shape.join(", ")}] of ${String(dtype)}, must be ${bytes}`,
    );
  if (file.dataStart + end > file.size)
    return fail(`ends at byte ${file.dataStart + end}, the file has ${file.size}`);
  const rows = shape[0] ?? 1;
  return {
    path: file.path,
    offset: file.dataStart + begin,
    bytes,
    dtype: dtype as StoredTensor["dtype"],
    rows,
    cols: rows === 0 ? 0 : bytes / size / rows,
    shape,
  };
}

/** The tensors cover the data without overlap or hole, as the format demands; a name given twice leaves a hole. */
function checkCover(tensors: Map<string, StoredTensor>, file: DataRange): void {
  const fail = (why: string): never => {
    throw new ModelError("BAD_MODEL", `${file.path}: ${why}`);
  };
  let at = file.dataStart;
  let before = "the header";
  for (const [name, { offset, bytes }] of [...tensors].sort(
    ([, a], [, b]) => a.offset - b.offset,
  )) {
    if (offset < at) fail(`tensors ${before} and ${name} overlap`);
    if (offset > at) fail(`${offset - at} bytes before tensor ${name} belong to no tensor`);
    at = offset + bytes;
    before = name;
  }
  if (at !== file.size) fail(`${file.size - at} bytes after ${before} belong to no tensor`);
}

/** @throws ModelError BAD_MODEL naming file, tensor, limit and value. */
export async function readSafetensors(path: string): Promise<Map<string, StoredTensor>> {
  const { json, dataStart, size } = await readHeader(path);
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new ModelError("BAD_MODEL", `${path}: the header is no object`);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(json))
    if (name !== "__metadata__")
      tensors.set(name, parseEntry(name, entry, { path, dataStart, size }));
  checkCover(tensors, { path, dataStart, size });
  return tensors;
}
