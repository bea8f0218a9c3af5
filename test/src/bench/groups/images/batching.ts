/** What batches over users bring: one-tile pictures of 8 users at once, against one request at a time. */
import { openModel } from "@tessera/model";
import type { BenchContext } from "../../context.js";
import { figure, type Figure, type Goal } from "../../figure.js";
import { encoderLayer, tinyVariant } from "../../models.js";
import { noisePictures, sendAll, withTiles } from "../../pictures.js";
import { startServing, type Serving } from "../../serve.js";
import { median, pairedRatio } from "../../statistics.js";

const USERS = [8, 1] as const;

interface Served {
  name: string;
  dir: string;
  /** Pictures of a round: of 8 users together, of one. */
  pictures: Record<(typeof USERS)[number], number>;
  why: string;
  goal?: Goal;
}

/** The layer takes half a second a tile: few of them. */
const served = (): Served[] => [
  {
    name: "tiny",
    dir: tinyVariant("d"),
    pictures: { 8: 96, 1: 48 },
    why: "",
    goal: { atLeast: 1.5 },
  },
  {
    name: "72b_layer",
    dir: encoderLayer(),
    pictures: { 8: 8, 1: 4 },
    why: ": no goal, one tile alone has the fma share of eight (vision.72b_layer.1w.fma_share_1, _8)",
  },
];

interface Case extends Served {
  serving: Serving;
  tileSize: number;
  /** Tiles a second by round: of 8 users, of one. */
  rates: Record<(typeof USERS)[number], number[]>;
}

async function start(one: Served): Promise<Case> {
  const { config } = await openModel(one.dir);
  const serving = await startServing(one.dir, 1);
  return { ...one, serving, tileSize: config.tile.size, rates: { 8: [], 1: [] } };
}

async function rate(one: Case, users: (typeof USERS)[number]): Promise<number> {
  const { serving, pictures, tileSize } = one;
  const count = pictures[users];
  const made = await noisePictures(count, 1, tileSize);
  const seconds = await withTiles(serving, count, () => sendAll(serving.client, made, users));
  return count / seconds;
}

async function measure(cases: Case[], { rounds, log }: BenchContext): Promise<void> {
  for (const one of cases) await rate(one, 1); // warms up
  for (let round = 1; round <= rounds; round++)
    for (const one of cases) {
      for (const users of USERS) one.rates[users].push(await rate(one, users));
      const text = USERS.map((users) => one.rates[users].at(-1)?.toFixed(2)).join(", ");
      log(`batching.${one.name}, round ${round}: ${text} tiles/s with ${USERS.join(", ")} users`);
    }
}

function figuresOf({ name, rates, why, goal }: Case): Figure[] {
  const pairs = rates[8].map((value, i) => ({ value, rival: rates[1][i] ?? NaN }));
  return [
    ...USERS.map((users) =>
      figure({
        name: `images.batching.${name}.users_${users}`,
        value: median(rates[users]),
        unit: "tiles/s",
        measure: `pictures of one tile, ${users} requests at a time, 1 worker, from sending to the first token`,
      }),
    ),
    figure(
      {
        name: `images.batching.${name}.gain_8`,
        value: pairedRatio(pairs),
        unit: "ratio",
        measure: `tiles a second of 8 users at once, to those of one request at a time in turn${why}`,
      },
      goal,
    ),
  ];
}

export async function batching(context: BenchContext): Promise<Figure[]> {
  const cases: Case[] = [];
  try {
    for (const one of served()) cases.push(await start(one));
    await measure(cases, context);
    return cases.flatMap(figuresOf);
  } finally {
    await Promise.all(cases.map(({ serving }) => serving.stop()));
  }
}
