/** The models that are measured. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { root } from "../harness/paths.js";

export interface BenchModel {
  name: string;
  dir: string;
  /** Tokens each stream decodes in a round, by the number of streams. */
  decodeTokens: Record<1 | 8 | 32, number>;
}

/** Shorter than the models': the cache is planned for a part of the streams at full length. */
export const MAX_MODEL_LEN = 2048;

const MODELS: BenchModel[] = [
  { name: "tiny", dir: root("models/nvlm-d-tiny"), decodeTokens: { 1: 96, 8: 96, 32: 64 } },
  {
    name: "0.5b",
    dir: root("build/models/random-qwen2-0.5b"),
    decodeTokens: { 1: 16, 8: 12, 32: 8 },
  },
];
export const MODEL_NAMES = MODELS.map(({ name }) => name);

/** Random weights are written once, some seconds; later runs find them. */
function make(dir: string, shape: string): void {
  if (existsSync(`${dir}/model.safetensors`)) return;
  const script = root("scripts/make-random-model.mjs");
  const args = [script, "--shape", shape, "--out", dir];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) throw new Error(`${script} ended with ${status}`);
}

export function benchModels(names: readonly string[]): BenchModel[] {
  const chosen = MODELS.filter(({ name }) => names.includes(name));
  for (const { dir } of chosen) make(dir, "qwen2-0.5b");
  return chosen;
}

/** A layer of NVLM-D-72B's vision encoder with a small projector and decoder (0.5 GB). */
export function encoderLayer(): string {
  const dir = root("build/models/random-internvit-6b-layer");
  make(dir, "internvit-6b-layer");
  return dir;
}

/** The tiny decoder with an encoder of one wide layer, whose tiles take a thread some 10 ms. */
export function wideEncoder(): string {
  const dir = root("build/models/random-tiny-wide-encoder");
  make(dir, "tiny-wide-encoder");
  return dir;
}

export const VARIANTS = ["d", "x", "h"] as const;
export type Variant = (typeof VARIANTS)[number];

export function tinyVariant(variant: Variant): string {
  return root(`models/nvlm-${variant}-tiny`);
}

/** The 0.5b model, and as X and H the same decoder with cross-attention in layers 7, 15, 23 (1.3 GB each). */
export function largeVariant(variant: Variant): string {
  const shape = variant === "d" ? "qwen2-0.5b" : `qwen2-0.5b-${variant}`;
  const dir = root(`build/models/random-${shape}`);
  make(dir, shape);
  return dir;
}
