/** An encode program written by a test, run once on one tile. */
import { planPlacement, parseConfig, type Program } from "@tessera/model";
import { openEngine, type TensorSource } from "@tessera/native/engine";
import { readFile } from "node:fs/promises";
import { root } from "./paths.js";

export interface ProbeRun {
  encode: Program;
  tensors: Record<string, TensorSource>;
  tileSize: number;
  /** Normalised pixels [3, tileSize, tileSize]. */
  pixels: Float32Array;
  capture: string[];
}

/** Of the buffer that the program stores, if it does. */
function storedShape({ buffers, segments }: Program): { rows: number; width: number } {
  const [stored] = segments
    .flatMap(({ ops }) => ops)
    .flatMap((op) => (op.op === "store_embeddings" ? [buffers[op.x]] : []));
  return stored ?? { rows: 1, width: 16 };
}

/** → what the ops with these labels left, by label. */
export async function runProgram(run: ProbeRun): Promise<Record<string, Float32Array>> {
  const config = parseConfig(
    JSON.parse(await readFile(root("test/goldens/checkpoint/config.json"), "utf8")),
  );
  const engine = await openEngine(
    {
      encode: run.encode,
      step: { buffers: [], weights: [], segments: [] },
      tensors: run.tensors,
      rank: 0,
      size: 1,
      threads: 1,
      cache: { layers: 1, kvHeads: 1, headDim: 16 },
      embedding: storedShape(run.encode),
      tile: { size: run.tileSize },
      vocabulary: 1,
    },
    () => undefined,
  );
  try {
    await engine.beginEpoch(1n, {
      ...planPlacement(config, { size: 1, kvType: "f32", maxModelLen: 64 }),
      wireType: "f32",
      maxStepsInFlight: 1,
      selectableIds: 1,
      collectiveDeadlineMs: 20_000,
    });
    const tiles = [{ embeddingId: 1n, pixels: run.pixels }];
    const plan = { epoch: 1n, encodeId: 1n, tiles, capture: run.capture };
    return (await engine.encode(plan)).captured;
  } finally {
    await engine.close();
  }
}
