/** Tiles a second through the vision encoder and the projector of one engine, by the number of tiles in a batch. */
import { availableParallelism } from "node:os";
import { openModel, planPlacement, programFlops, rankProgram } from "@tessera/model";
import { openEngine, type Engine } from "@tessera/native/engine";
import { seeded } from "../../harness/random.js";
import { root } from "../../harness/paths.js";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { encoderLayer } from "../models.js";
import { median } from "../statistics.js";
import { fmaCeiling } from "./kernels.js";

const BATCHES = [1, 2, 4, 8];
const THREADS = availableParallelism();
/** Of an encode of 8 tiles, on a slow machine too. */
const DEADLINE_MS = 120_000;
/** Of the layer in its true size, whose linears are most of its work. */
const SHARE_GOAL = { atLeast: 0.75 };

interface Encoder {
  name: string;
  engine: Engine;
  tileFlops: number;
  tiles: Uint8Array[];
  /** Seconds of each round, by tiles in the batch. */
  seconds: Map<number, number[]>;
  goal: { atLeast: number } | undefined;
}

async function open(name: string, dir: string, goal?: { atLeast: number }): Promise<Encoder> {
  const model = await openModel(dir);
  const { config } = model;
  const program = rankProgram(config, { rank: 0, size: 1 });
  const spec = { ...program, tensors: await model.tensors(), threads: THREADS };
  const engine = await openEngine(spec, () => undefined);
  const placement = {
    ...planPlacement(config, { size: 1, kvType: "f32", maxModelLen: 512 }),
    wireType: "f32" as const,
    maxStepsInFlight: 1,
    selectableIds: config.decoder.vocabularySize,
    collectiveDeadlineMs: DEADLINE_MS,
  };
  await engine.beginEpoch(1n, placement);
  const random = seeded(1);
  const bytes = 3 * config.tile.size ** 2;
  const tile = () => Uint8Array.from({ length: bytes }, () => Math.floor(256 * random()));
  const work = { token: 0, wanted: 0, tile: 1, stream: 0, sights: 0 };
  return {
    name,
    engine,
    tileFlops: programFlops(program.encode, work),
    tiles: Array.from({ length: Math.max(...BATCHES) }, tile),
    seconds: new Map(BATCHES.map((count) => [count, []])),
    goal,
  };
}

/** Seconds of one encode of each size; what it made is released. */
async function round({ engine, tiles }: Encoder, turn: number): Promise<number[]> {
  const seconds: number[] = [];
  const embeddingIds: bigint[] = [];
  for (const [i, count] of BATCHES.entries()) {
    const batch = tiles.slice(0, count).map((pixels, at) => {
      const embeddingId = BigInt(1000 * turn + 100 * i + at);
      return { embeddingId, pixels };
    });
    const start = performance.now();
    await engine.encode({ epoch: 1n, encodeId: BigInt(10 * turn + i + 1), tiles: batch });
    seconds.push((performance.now() - start) / 1e3);
    embeddingIds.push(...batch.map(({ embeddingId }) => embeddingId));
  }
  engine.release({ sequenceIds: [], embeddingIds });
  return seconds;
}

/** The encoders take turns; the first round warms up. */
async function measure(encoders: Encoder[], { rounds, log }: BenchContext): Promise<void> {
  for (let turn = 0; turn <= rounds; turn++)
    for (const encoder of encoders) {
      const seconds = await round(encoder, turn);
      if (turn === 0) continue;
      BATCHES.forEach((count, i) => encoder.seconds.get(count)?.push(seconds[i] ?? NaN));
      const rates = BATCHES.map((count, i) => (count / (seconds[i] ?? NaN)).toFixed(2));
      log(`${encoder.name}, round ${turn}: ${rates.join(", ")} tiles/s`);
    }
}

function figuresOf(encoder: Encoder, ceiling: number | undefined): Figure[] {
  const { name, tileFlops, goal } = encoder;
  const times = (count: number) => encoder.seconds.get(count) ?? [];
  const gains = times(1).map((one, i) => (8 * one) / (times(8)[i] ?? NaN));
  const threads = `${THREADS} threads`;
  const rates = BATCHES.map((count) => ({ count, rate: count / median(times(count)) }));
  return [
    ...rates.map(({ count, rate }) =>
      figure({
        name: `vision.${name}.1w.batch_${count}`,
        value: rate,
        unit: "tiles/s",
        measure: `encodes of ${count} tiles one after another in one engine, ${threads}`,
      }),
    ),
    figure({
      name: `vision.${name}.1w.gain_8`,
      value: median(gains),
      unit: "ratio",
      measure: "tiles a second in encodes of 8, to those in encodes of 1 in turn with them",
    }),
    ...(ceiling === undefined ? [] : rates).map(({ count, rate }) =>
      figure(
        {
          name: `vision.${name}.1w.fma_share_${count}`,
          value: (rate * tileFlops) / (ceiling ?? NaN),
          unit: "ratio",
          measure: `${(tileFlops / 1e9).toFixed(1)} GFLOP a tile (linears, attention), to the fma ceiling of this run, ${threads}`,
        },
        goal,
      ),
    ),
  ];
}

export async function vision(context: BenchContext): Promise<Figure[]> {
  const encoders: Encoder[] = [];
  try {
    encoders.push(await open("tiny", root("models/nvlm-d-tiny")));
    encoders.push(await open("72b_layer", encoderLayer(), SHARE_GOAL));
    await measure(encoders, context);
    const ceiling = fmaCeiling(context.figures, THREADS);
    return encoders.flatMap((encoder) => figuresOf(encoder, ceiling));
  } finally {
    await Promise.all(encoders.map(({ engine }) => engine.close()));
  }
}
