/** A model folder in the Hugging Face layout. */
import { createHash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { parseConfig, parseTokenIds, type ModelConfig } from "./config.js";
import { ModelError } from "./errors.js";
import { readSafetensors, type StoredTensor, type TensorSource } from "./safetensors.js";
import { tensorShapes } from "./tensors.js";

const MAX_JSON_BYTES = 64 << 20;

export interface ModelFolder {
  dir: string;
  /** The folder's name. */
  name: string;
  config: ModelConfig;
  /** generation_config.json's eos_token_id, else llm_config's. */
  stopTokenIds: number[];
  /** That every stop id is in the vocabulary. @throws ModelError BAD_MODEL */
  checkStopTokens(): void;
  /** That model.safetensors.index.json, where there is one, names every tensor; no weight file is opened. */
  checkIndex(): Promise<void>;
  /** Every needed tensor, checked. @throws ModelError BAD_MODEL */
  tensors(): Promise<Record<string, TensorSource>>;
  /**
   * Hex SHA-256 of config.json, and of every tensor's name, shape, type, place and the first, middle and last 64 bytes
   * of its data: weights that were trained further differ there in some tensor. A change elsewhere goes unseen.
   */
  hash(): Promise<string>;
}

async function readJson(path: string): Promise<unknown> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new ModelError("BAD_MODEL", `${path}: cannot be read`, cause);
  });
  if (bytes.length > MAX_JSON_BYTES)
    throw new ModelError("BAD_MODEL", `${path}: ${bytes.length} bytes, limit ${MAX_JSON_BYTES}`);
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw new ModelError("BAD_MODEL", `${path}: no JSON`, cause);
  }
}

async function readJsonIfThere(path: string): Promise<Record<string, unknown> | undefined> {
  const there = await readFile(path).then(
    () => true,
    () => false,
  );
  return there ? ((await readJson(path)) as Record<string, unknown>) : undefined;
}

const GENERATION = "generation_config.json";
const INDEX = "model.safetensors.index.json";

/** Tensor → file, as the index says; undefined without an index. */
async function readIndex(dir: string): Promise<Record<string, string> | undefined> {
  const index = await readJsonIfThere(join(dir, INDEX));
  if (index === undefined) return undefined;
  const map = index["weight_map"];
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw new ModelError("BAD_MODEL", `${INDEX}: weight_map is no object`);
  for (const file of Object.values(map) as unknown[])
    if (typeof file !== "string" || file !== basename(file) || file === "")
      throw new ModelError("BAD_MODEL", `${INDEX}: file name ${JSON.stringify(file)}`);
  return map as Record<string, string>;
}

/** File of each tensor, from the index or the single file. */
async function readStored(dir: string): Promise<Map<string, StoredTensor>> {
  const map = await readIndex(dir);
  if (map === undefined) return readSafetensors(join(dir, "model.safetensors"));
  const all = new Map<string, StoredTensor>();
  for (const file of new Set(Object.values(map))) {
    for (const [name, tensor] of await readSafetensors(join(dir, file)))
      if (map[name] === file) all.set(name, tensor);
  }
  return all;
}

function checkTensors(config: ModelConfig, stored: Map<string, StoredTensor>): void {
  for (const [name, shape] of tensorShapes(config)) {
    const tensor = stored.get(name);
    if (tensor === undefined) throw new ModelError("BAD_MODEL", `tensor ${name}: missing`);
    if (tensor.shape.join() !== shape.join())
      throw new ModelError(
        "BAD_MODEL",
        `tensor ${name}: shape [${tensor.shape.join(", ")}], must be [${shape.join(", ")}]`,
      );
  }
}

const SAMPLE_BYTES = 64;

/** Hex, by tensor: the first, middle and last bytes of its data. */
async function sampleData(stored: Map<string, StoredTensor>): Promise<Map<string, string>> {
  const samples = new Map<string, string>();
  for (const path of new Set([...stored.values()].map((tensor) => tensor.path))) {
    const file = await open(path, "r");
    try {
      for (const [name, { offset, bytes, ...tensor }] of stored) {
        if (tensor.path !== path) continue;
        const length = Math.min(SAMPLE_BYTES, bytes);
        const places = [0, Math.floor((bytes - length) / 2), bytes - length];
        const read = async (place: number) =>
          (await file.read(Buffer.alloc(length), 0, length, offset + place)).buffer;
        samples.set(name, Buffer.concat(await Promise.all(places.map(read))).toString("hex"));
      }
    } finally {
      await file.close();
    }
  }
  return samples;
}

/** Reads config.json and generation_config.json; weights are looked at by `tensors` and `hash` only. */
export async function openModel(path: string): Promise<ModelFolder> {
  const dir = resolve(path);
  const json = await readJson(join(dir, "config.json"));
  const config = parseConfig(json);
  const generation = await readJsonIfThere(join(dir, GENERATION));
  const stops = parseTokenIds(generation?.["eos_token_id"]);
  const stopTokenIds = stops.length > 0 ? stops : config.decoder.eosTokenIds;
  let loading: Promise<Map<string, StoredTensor>> | undefined;
  const stored = async () => {
    loading ??= readStored(dir);
    const tensors = await loading;
    checkTensors(config, tensors);
    return tensors;
  };
  return {
    dir,
    name: basename(dir),
    config,
    stopTokenIds,
    checkStopTokens() {
      const { vocabularySize } = config.decoder;
      const bad = stopTokenIds.find((id) => id >= vocabularySize);
      if (bad === undefined) return;
      const file = stops.length > 0 ? GENERATION : "config.json";
      const why = `eos_token_id ${bad}, the vocabulary has ${vocabularySize} ids`;
      throw new ModelError("BAD_MODEL", `${join(dir, file)}: ${why}`);
    },
    async checkIndex() {
      const map = await readIndex(dir);
      const missing = [...tensorShapes(config).keys()].find(
        (name) => map !== undefined && !Object.hasOwn(map, name),
      );
      if (missing !== undefined)
        throw new ModelError("BAD_MODEL", `${INDEX}: tensor ${missing}: missing`);
    },
    async tensors() {
      const needed = [...(await stored())].filter(([name]) => tensorShapes(config).has(name));
      return Object.fromEntries(
        needed.map(([name, { shape: _shape, ...source }]) => [name, source]),
      );
    },
    async hash() {
      const tensors = await stored();
      const samples = await sampleData(tensors);
      const facts = [...tensors]
        .map(([name, t]) => [name, t.shape, t.dtype, t.offset, basename(t.path), samples.get(name)])
        .sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
      return createHash("sha256")
        .update(JSON.stringify([json, facts]))
        .digest("hex");
    },
  };
}
