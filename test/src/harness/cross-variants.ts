/**
 * The bundled NVLM-X and NVLM-H with other `cross_attention_config`s: cross-attention from a seed, all else as it is.
 * node test/dist/harness/cross-variants.js OUT   writes every folder, for the oracle
 */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseConfig, tensorShapes } from "@tessera/model";
import { root } from "./paths.js";
import { seeded } from "./random.js";

export interface CrossVariant {
  base: "x" | "h";
  keys: Record<string, unknown>;
  /** Widths it can be cut to. */
  sizes: number[];
}

const WIDE = { num_attention_heads: 8, num_key_value_heads: 4, head_dim: 32 };
const ALL = { kv_norm: false, qk_norm: true, attention_bias: true, gate: "none", layers: [0, 2] };

export const CROSS_VARIANTS: Record<string, CrossVariant> = {
  "no-kv-norm": { base: "x", keys: { kv_norm: false }, sizes: [1, 8] },
  "qk-norm": { base: "h", keys: { qk_norm: true }, sizes: [1, 8] },
  bias: { base: "x", keys: { attention_bias: true }, sizes: [1, 8] },
  "no-gate": { base: "h", keys: { gate: "none" }, sizes: [1, 8] },
  "8-heads-of-32": { base: "x", keys: WIDE, sizes: [1, 2, 4] },
  "layers-0-and-2": { base: "h", keys: { layers: [0, 2] }, sizes: [1, 8] },
  "all-of-them-x": { base: "x", keys: { ...ALL, ...WIDE }, sizes: [1, 2, 4] },
  "all-of-them-h": { base: "h", keys: { ...ALL, ...WIDE }, sizes: [1, 2, 4] },
};

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Uniform bf16: gates in 0.5…1.5, norms in 0.7…1.3, biases within 0.2; a linear keeps the size of its input. */
function randomValues(name: string, shape: number[], next: () => number): Uint16Array {
  const count = shape.reduce((product, n) => product * n, 1);
  const [middle, reach] = name.endsWith(".gate")
    ? [1, 0.5]
    : name.endsWith("norm.weight")
      ? [1, 0.3]
      : name.endsWith(".bias")
        ? [0, 0.2]
        : [0, Math.sqrt(3 / (shape[1] ?? 1))];
  const values = Float32Array.from({ length: count }, () => middle + reach * (2 * next() - 1));
  return Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
}

async function readStored(
  path: string,
): Promise<(name: string) => { part: Buffer; dtype: string } | undefined> {
  const bytes = await readFile(path);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<string, Entry>;
  return (name) => {
    const { data_offsets: offsets, dtype } = header[name] ?? {};
    if (offsets === undefined || dtype === undefined) return undefined;
    return { part: bytes.subarray(start + offsets[0], start + offsets[1]), dtype };
  };
}

/** Writes the variant's model folder. The same variant gives the same bytes. */
export async function writeCrossVariant(out: string, variant: CrossVariant): Promise<void> {
  const base = root(`models/nvlm-${variant.base}-tiny`);
  await mkdir(out, { recursive: true });
  await cp(base, out, { recursive: true });
  const json = JSON.parse(await readFile(join(base, "config.json"), "utf8")) as Record<
    string,
    object
  >;
  Object.assign(json.cross_attention_config ?? {}, variant.keys);
  await writeFile(join(out, "config.json"), JSON.stringify(json));
  const stored = await readStored(join(base, "model.safetensors"));
  const next = seeded(1);
  const header: Record<string, Entry> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, shape] of tensorShapes(parseConfig(json))) {
    const kept = name.includes(".cross_attn.") ? undefined : stored(name);
    const { part, dtype } = kept ?? {
      part: new Uint8Array(randomValues(name, [...shape], next).buffer),
      dtype: "BF16",
    };
    parts.push(part);
    header[name] = {
      dtype,
      shape: [...shape],
      data_offsets: [offset, (offset += part.length)],
    };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(join(out, "model.safetensors"), Buffer.concat([length, text, ...parts]));
}

const [, script, out] = process.argv;
if (out !== undefined && import.meta.url === pathToFileURL(script ?? "").href)
  for (const [name, variant] of Object.entries(CROSS_VARIANTS))
    await writeCrossVariant(join(out, name), variant);
