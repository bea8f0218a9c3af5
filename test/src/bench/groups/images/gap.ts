/** The longest stop of a running stream while other users' tiles are encoded, against what is promised. */
import { setMaxListeners } from "node:events";
import { openModel } from "@tessera/model";
import { TesseraError, type TesseraClient } from "@tessera/client";
import { eventually } from "../../../harness/eventually.js";
import type { BenchContext } from "../../context.js";
import { figure, type Figure } from "../../figure.js";
import { wideEncoder } from "../../models.js";
import { encodedTiles, noisePictures, pictureRequest } from "../../pictures.js";
import { scrape, startServing, type Serving } from "../../serve.js";
import { largestGap, median } from "../../statistics.js";

/** Two or three tiles of the model, where a rank takes eight at once: it is the budget that ends a batch. */
const BUDGET_MS = 30;
const PATCHES = 7;
/** 203 tiles: the workers have room for 256. */
const PICTURES = 29;
const TILES = PICTURES * PATCHES;
/** Before the tiles come: one step is the longest of these. */
const TOKENS_ALONE = 500;
const MAX_TOKENS = 3500;
const DEADLINE_MS = 120_000;
const GOAL = { atMost: 1 };

interface Case {
  name: string;
  workers: number;
}
const CASES: Case[] = [
  { name: "d.1w", workers: 1 },
  { name: "d.2w", workers: 2 },
];

interface Gaps {
  /** Longest between two tokens of the stream, milliseconds: alone, and while tiles were encoded. */
  alone: number;
  beside: number;
  /** Tiles in a batch on average, over all ranks. */
  batchTiles: number;
}

interface Running {
  /** When each token came, ms. */
  arrivals: number[];
  stop: () => Promise<void>;
}

/** A stream of tokens from a prompt of one's own that goes on until it is stopped. */
function run(client: TesseraClient, seed: number): Running {
  const arrivals: number[] = [];
  const ending = new AbortController();
  const tokenIds = Array.from({ length: 16 }, (_, i) => 10 + ((seed * 7919 + i * 104_729) % 900));
  const read = async () => {
    const request = { tokenIds, maxTokens: MAX_TOKENS, returnTokenIds: true };
    const events = client.generate(
      { ...request, stop: { ignoreEos: true } },
      { signal: ending.signal },
    );
    for await (const { kind } of events)
      if (kind.case === "delta") arrivals.push(...kind.value.tokenIds.map(() => performance.now()));
  };
  const done = read().catch((error: unknown) => {
    if (!ending.signal.aborted) throw error;
  });
  return {
    arrivals,
    async stop() {
      ending.abort();
      await done;
    },
  };
}

async function untilTokens(serving: Serving, stream: Running, tokens: number): Promise<void> {
  const ran = async () => {
    await encodedTiles(serving); // as it is asked while tiles come
    return stream.arrivals.length >= tokens;
  };
  await eventually(`${tokens} tokens of a stream`, ran, DEADLINE_MS);
}

/** Sends the pictures all at once; returns when their tiles are encoded. Their prompts do not run. */
async function encodeBeside(serving: Serving, pictures: Buffer[]): Promise<void> {
  const before = await encodedTiles(serving);
  const ending = new AbortController();
  setMaxListeners(2 * PICTURES, ending.signal);
  const answers = pictures.map((data) =>
    serving.client.generateOnce(pictureRequest(data), { signal: ending.signal }).then(
      () => "answered",
      (error: unknown) => (error instanceof TesseraError ? error.code : String(error)),
    ),
  );
  const encoded = async () => (await encodedTiles(serving)) - before === TILES;
  await eventually(`${TILES} tiles are encoded`, encoded, DEADLINE_MS);
  ending.abort();
  const others = (await Promise.all(answers)).filter((answer) => answer !== "ABORTED");
  if (others.length > 0)
    throw new Error(`of ${PICTURES} requests that must wait: ${others.join()}`);
}

async function batches({ cluster }: Serving): Promise<number> {
  const [count = NaN] = await scrape(cluster, ["tessera_encode_batch_tiles_count"]);
  return count;
}

async function gaps(serving: Serving, tileSize: number, seed: number): Promise<Gaps> {
  const pictures = await noisePictures(PICTURES, PATCHES, tileSize);
  const stream = run(serving.client, seed);
  try {
    await untilTokens(serving, stream, TOKENS_ALONE);
    const before = await batches(serving);
    const first = stream.arrivals.length;
    await encodeBeside(serving, pictures);
    const batchTiles = TILES / ((await batches(serving)) - before);
    const last = stream.arrivals.length + 1;
    await untilTokens(serving, stream, last);
    const alone = largestGap(stream.arrivals.slice(0, first));
    const beside = largestGap(stream.arrivals.slice(first - 1, last));
    return { alone, beside, batchTiles };
  } finally {
    await stream.stop();
  }
}

async function measure({ name, workers }: Case, { rounds, log }: BenchContext): Promise<Figure[]> {
  const dir = wideEncoder();
  const { config } = await openModel(dir);
  const flags = {
    vision: "replicate" as const,
    encodeBudgetMs: BUDGET_MS,
    maxModelLen: 4096,
    maxSequences: 1,
  };
  const serving = await startServing(dir, workers, { flags, threads: 1 });
  const all: Gaps[] = [];
  try {
    for (let round = 0; round <= rounds; round++) {
      const each = await gaps(serving, config.tile.size, round);
      log(
        `gap.${name}, round ${round}: ${each.beside.toFixed(1)} ms, alone ${each.alone.toFixed(1)} ms, ` +
          `batches of ${each.batchTiles.toFixed(1)} tiles`,
      );
      if (round > 0) all.push(each); // the first warms up
    }
  } finally {
    await serving.stop();
  }
  return figuresOf({ name, workers }, all);
}

function figuresOf({ name, workers }: Case, all: Gaps[]): Figure[] {
  const threads = `${workers} ${workers === 1 ? "worker" : "workers"} of 1 thread`;
  const middle = (of: keyof Gaps) => median(all.map((each) => each[of]));
  const share = ({ alone, beside }: Gaps) => beside / (2 * BUDGET_MS + alone);
  return [
    figure({
      name: `images.gap.${name}.ms`,
      value: middle("beside"),
      unit: "ms",
      measure:
        `tiny decoder, encoder of a layer of 1152, ${threads}, --encode-budget-ms ${BUDGET_MS}: ` +
        `longest gap of a running stream while ${TILES} tiles of others are encoded, ` +
        `whose prompts wait; in batches of ${middle("batchTiles").toFixed(1)} tiles`,
    }),
    figure(
      {
        name: `images.gap.${name}`,
        value: Math.max(...all.map(share)),
        unit: "ratio",
        measure:
          `that gap to 2 × ${BUDGET_MS} ms + one step, the longest gap of the same stream before the tiles came ` +
          `(${middle("alone").toFixed(1)} ms); worst of ${all.length} rounds`,
      },
      GOAL,
    ),
  ];
}

export async function gap(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const one of CASES) figures.push(...(await measure(one, context)));
  return figures;
}
