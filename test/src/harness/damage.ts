/** Copies of the bundled model with one thing broken. */
import { cp, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./paths.js";

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

export interface ModelCopy {
  dir: string;
  weights: string;
  /** Rewrites the header of model.safetensors; the data stays. */
  editHeader(edit: (header: Header) => void): Promise<void>;
  /** Changes keys of cross_attention_config in config.json. */
  editCross(keys: object): Promise<void>;
  /** Writes bytes at a place of the data. */
  editData(name: string, edit: (bytes: Buffer) => void): Promise<void>;
  remove(): Promise<void>;
}

function parse(bytes: Buffer): { header: Header; data: Buffer } {
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8")) as Header;
  return { header, data: bytes.subarray(8 + length) };
}

export async function copyModel(name = "nvlm-d-tiny"): Promise<ModelCopy> {
  const dir = await mkdtemp(join(tmpdir(), "tessera-model-"));
  await cp(root(`models/${name}`), dir, { recursive: true });
  const weights = join(dir, "model.safetensors");
  return {
    dir,
    weights,
    async editHeader(edit) {
      const { header, data } = parse(await readFile(weights));
      edit(header);
      const text = Buffer.from(JSON.stringify(header));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(text.length));
      await writeFile(weights, Buffer.concat([length, text, data]));
    },
    async editCross(keys) {
      const path = join(dir, "config.json");
      const config = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
      const cross = { ...(config["cross_attention_config"] as object), ...keys };
      await writeFile(path, JSON.stringify({ ...config, cross_attention_config: cross }));
    },
    async editData(name, edit) {
      const bytes = await readFile(weights);
      const { header, data } = parse(bytes);
      const [begin, end] = header[name]?.data_offsets ?? [0, 0];
      edit(data.subarray(begin, end));
      await writeFile(weights, bytes);
    },
    remove: () => rm(dir, { recursive: true }),
  };
}

/** Cuts the file in half. */
export async function halve(path: string): Promise<void> {
  await truncate(path, Math.floor((await readFile(path)).length / 2));
}
