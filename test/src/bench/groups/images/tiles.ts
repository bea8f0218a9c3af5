/** Tiles a second from the client's picture to its answer, by placement of the vision encoder and number of workers. */
import { availableParallelism } from "node:os";
import { openModel, programFlops, rankProgram } from "@tessera/model";
import { root } from "../../../harness/paths.js";
import type { BenchContext } from "../../context.js";
import { figure, type Figure } from "../../figure.js";
import { noisePictures, sendAll, withTiles } from "../../pictures.js";
import { startServing, type Serving } from "../../serve.js";
import { median, pairedRatio } from "../../statistics.js";
import { fmaCeiling } from "../kernels.js";

const MODEL = root("models/nvlm-d-tiny");
const USERS = 8;
const PATCHES = 7;
/** Of a round, all users together. */
const PICTURES = 32;
const TILES = PICTURES * PATCHES;
const THREADS = availableParallelism();

interface Placement {
  name: string;
  workers: number;
  flags: { vision?: "replicate" | "tensor"; visionWorkers?: number };
}

const whole = (workers: number): Placement => ({
  name: `replicate.${workers}w`,
  workers,
  flags: { vision: "replicate" },
});
const cut = (workers: number): Placement => ({
  name: `tensor.${workers}w`,
  workers,
  flags: { vision: "tensor" },
});
/** One worker more, which only encodes. */
const apart = (workers: number): Placement => ({
  name: `apart.${workers}w`,
  workers,
  flags: { visionWorkers: 1 },
});
/** The first is what the others' ratios are taken to. */
const PLACEMENTS = [whole(1), whole(2), whole(4), cut(2), cut(4), apart(1), apart(2)];

interface Case extends Placement {
  serving: Serving;
  /** Tiles a second, by round. */
  rates: number[];
}

async function rate({ serving }: Case, tileSize: number): Promise<number> {
  const pictures = await noisePictures(PICTURES, PATCHES, tileSize);
  const seconds = await withTiles(serving, TILES, () => sendAll(serving.client, pictures, USERS));
  return TILES / seconds;
}

/** The clusters take turns; the first round warms up. */
async function measure(cases: Case[], tileSize: number, { rounds, log }: BenchContext) {
  for (let round = 0; round <= rounds; round++)
    for (const each of cases) {
      const tiles = await rate(each, tileSize);
      if (round === 0) continue;
      each.rates.push(tiles);
      log(`tiles.${each.name}, round ${round}: ${tiles.toFixed(1)} tiles/s`);
    }
}

async function tileFlops(): Promise<number> {
  const { config } = await openModel(MODEL);
  const work = { token: 0, wanted: 0, tile: 1, stream: 0, sights: 0 };
  return programFlops(rankProgram(config, { rank: 0, size: 1 }).encode, work);
}

function setting({ workers, flags }: Placement): string {
  if (flags.visionWorkers !== undefined)
    return `--vision-workers ${flags.visionWorkers} beside ${workers}`;
  return `--vision ${flags.vision ?? "auto"} on ${workers}`;
}

function figuresOf(each: Case, first: Case, ceiling: { flops: number; tile: number } | undefined) {
  const name = `images.tiles.${each.name}`;
  const value = median(each.rates);
  const pairs = each.rates.map((own, i) => ({ value: own, rival: first.rates[i] ?? NaN }));
  const figures = [
    figure({
      name,
      value,
      unit: "tiles/s",
      measure:
        `tiny, ${setting(each)}: ${USERS} users at once with pictures of ${PATCHES} tiles, ` +
        "from sending to the first token, prefill included",
    }),
  ];
  if (each !== first)
    figures.push(
      figure({
        name: `${name}.gain`,
        value: pairedRatio(pairs),
        unit: "ratio",
        measure: `to images.tiles.${first.name} in turn, on the same ${THREADS} cores`,
      }),
    );
  if (ceiling !== undefined)
    figures.push(
      figure({
        name: `${name}.fma_share`,
        value: (value * ceiling.tile) / ceiling.flops,
        unit: "ratio",
        measure: `${(ceiling.tile / 1e9).toFixed(2)} GFLOP a tile (linears, attention), to the fma ceiling of this run, ${THREADS} threads`,
      }),
    );
  return figures;
}

export async function tiles(context: BenchContext): Promise<Figure[]> {
  const cases: Case[] = [];
  try {
    const { config } = await openModel(MODEL);
    for (const placement of PLACEMENTS) {
      const serving = await startServing(MODEL, placement.workers, { flags: placement.flags });
      cases.push({ ...placement, serving, rates: [] });
    }
    await measure(cases, config.tile.size, context);
    const flops = fmaCeiling(context.figures, THREADS);
    const ceiling = flops === undefined ? undefined : { flops, tile: await tileFlops() };
    const [first] = cases;
    return first === undefined ? [] : cases.flatMap((each) => figuresOf(each, first, ceiling));
  } finally {
    await Promise.all(cases.map(({ serving }) => serving.stop()));
  }
}
