/** Engines of one model in one process, their exchange frames handed over directly. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { decodeImage, IMAGE_LIMITS, tileImage } from "@tessera/coordinator/request";
import {
  openModel,
  planPlacement,
  rankProgram,
  type KvType,
  type VisionPlacement,
  type WeightType,
} from "@tessera/model";
import {
  attachExchange,
  deliver,
  FRAME_HEADROOM,
  openEngine,
  type Engine,
  type LaneResult,
} from "@tessera/native/engine";
import { root } from "./paths.js";

export interface GroupOptions {
  size: number;
  kvType: KvType;
  /** Absent: bf16. */
  weightType?: WeightType;
  /** Ids from here on are never chosen. */
  selectableIds: number;
  maxModelLen?: number;
  /** Absent: replicate. */
  vision?: VisionPlacement;
  /** Ranks beyond `size` that only encode tiles; with `workers`. */
  encoders?: number;
}

function connect(engines: Engine[]): void {
  engines.forEach((engine, rank) => {
    attachExchange(engine.handle, ({ peers, buffer, ...frame }) => {
      for (const peer of peers) {
        const target = engines[peer];
        assert.ok(target);
        deliver(target.handle, { ...frame, peer: rank, payload: buffer.subarray(FRAME_HEADROOM) });
      }
    });
  });
}

/** A group at epoch 1, every rank ready for encode and step; encoders beyond `size` come last. */
export async function openGroup(dir: string, options: GroupOptions): Promise<Engine[]> {
  const { size, kvType, selectableIds, maxModelLen } = options;
  const { vision = "replicate", encoders = 0, weightType = "bf16" } = options;
  const model = await openModel(dir);
  const tensors = await model.tensors();
  const engines = await Promise.all(
    Array.from({ length: size + encoders }, (_, rank) =>
      openEngine(
        {
          ...rankProgram(model.config, { rank, size, vision, weights: weightType }),
          tensors,
          threads: 1,
        },
        () => undefined,
      ),
    ),
  );
  connect(engines);
  const placement = {
    ...planPlacement(model.config, { size, kvType, weightType, maxModelLen }),
    wireType: "f32" as const,
    maxStepsInFlight: 1,
    selectableIds,
    collectiveDeadlineMs: 20_000,
    encoders,
  };
  await Promise.all(engines.map((engine) => engine.beginEpoch(1n, placement)));
  return engines;
}

export async function closeGroup(engines: Engine[]): Promise<void> {
  await Promise.all(engines.map((engine) => engine.close()));
}

/** Tiles of bundled documents as the tiny models take them: per image their pixels. */
export function goldenTiles(images: string[]): Promise<Uint8Array[][]> {
  return Promise.all(
    images.map(async (name) => {
      const data = await readFile(root(`models/documents/${name}`));
      const image = await decodeImage(data, { field: name, limits: IMAGE_LIMITS });
      const options = { tileSize: 112, maxTiles: 6, useThumbnail: true };
      return (await tileImage(image, options)).tiles.map((tile) => tile.pixels);
    }),
  );
}

/** The greedy token of a row's lanes, and its log-probability. */
export function chosen(lanes: LaneResult[]): { tokenId: number; logprob: number } {
  const best = lanes
    .flatMap((lane) => (lane.best === null ? [] : [lane.best]))
    .reduce((a, b) => (b.scaled > a.scaled ? b : a));
  const max = Math.max(...lanes.map((lane) => lane.raw?.max ?? -Infinity));
  const sum = lanes.reduce(
    (s, { raw }) => s + (raw?.sum ?? 0) * Math.exp((raw?.max ?? 0) - max),
    0,
  );
  return { tokenId: best.tokenId, logprob: Math.fround(best.raw - (max + Math.log(sum))) };
}
