/**
 * Many streams at once on a cluster of each variant, some cut off: the others are the same to the bit, and nothing is
 * left behind.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import { ImageDetail, Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import sharp from "sharp";
import { essence, serve, type Served } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { rssBytes } from "../harness/memory.js";
import { root } from "../harness/paths.js";
import { seeded } from "../harness/random.js";
import { heldCount } from "../harness/shard-stats.js";

/** What leaks grows in every round; caches, collectors and JIT let at least one of them pass without. */
const MAX_ROUNDS = 6;
/** In a round after the first, of every process: buffers of frames are collected when there are 32 MiB of them. */
const GROWTH_LIMIT_BYTES = 48 << 20;

const QUESTIONS = ["Read the text.", "What is the name?", "What is the total?"] as const;

/** Every grid of at most 6 tiles, each by a page pulled to its shape. */
async function pictures(): Promise<Buffer[]> {
  const pages = await Promise.all(
    [1, 2, 3, 4, 5].map((n) => readFile(root(`models/documents/document-0${n}.png`))),
  );
  const grids = Array.from({ length: 6 }, (_, c) =>
    Array.from({ length: Math.floor(6 / (c + 1)) }, (_row, r) => [c + 1, r + 1] as const),
  ).flat();
  assert.equal(grids.length, 14);
  return Promise.all(
    grids.map(([columns, rows], i) =>
      sharp(pages[i % pages.length])
        .resize({ width: 112 * columns, height: 112 * rows, fit: "fill" })
        .png()
        .toBuffer(),
    ),
  );
}
const all = await pictures();

/** Three of four with one or two random pictures; some cut to one tile or to twelve; some sampled with a seed. */
function randomRequest(random: () => number): GenerateInput {
  const below = (n: number) => Math.floor(random() * n);
  const count = [0, 1, 1, 2][below(4)] ?? 0;
  const options = [{}, {}, { detail: ImageDetail.LOW }, { maxTiles: 12 }];
  const images = Array.from({ length: count }, () => ({
    content: {
      case: "image" as const,
      value: {
        data: all[below(all.length)] ?? Buffer.alloc(0),
        options: options[below(options.length)] ?? {},
      },
    },
  }));
  const question = QUESTIONS[below(QUESTIONS.length)] ?? QUESTIONS[0];
  const text = { content: { case: "text" as const, value: question } };
  return {
    messages: [{ role: Role.USER, parts: [...images, text] }],
    maxTokens: 8 + below(40),
    topLogprobs: 2,
    returnTokenIds: true,
    sampling: { temperature: [0, 0.8][below(2)] ?? 0, topP: 0.9, seed: BigInt(below(1000)) },
  };
}

/** Ends at a random event. */
async function cutOff(
  { client }: Served,
  request: GenerateInput,
  afterEvents: number,
): Promise<void> {
  const events = client.generate({ ...request, minTokens: 400, maxTokens: 400 });
  for (let i = 0; i <= afterEvents; i++) await events.next();
  await events.return(undefined);
}

interface Load {
  model: string;
  flags: { vision?: "tensor"; visionWorkers?: number };
  streams: number;
  cancelled: number;
}

/** One round: every stream that is not cut off is equal to its request alone. → resident bytes of each process. */
async function round(served: Served, load: Load, seed: number): Promise<number[]> {
  const { client, cluster } = served;
  const { streams, cancelled } = load;
  const random = seeded(seed);
  const requests = Array.from({ length: streams }, () => randomRequest(random));
  const cuts = Array.from({ length: streams }, () => Math.floor(random() * 30));
  const alone: unknown[] = [];
  for (const request of requests.slice(cancelled))
    alone.push(essence(await client.generateOnce(request)));
  const [, together] = await Promise.all([
    Promise.all(
      requests.slice(0, cancelled).map((request, i) => cutOff(served, request, cuts[i] ?? 0)),
    ),
    Promise.all(requests.slice(cancelled).map((request) => client.generateOnce(request))),
  ]);
  assert.deepEqual(together.map(essence), alone);
  await eventually("nothing is held", async () => (await heldCount(client)) === 0);
  return Promise.all(cluster.pids().map(rssBytes));
}

const nameOf = ({ model, flags, streams, cancelled }: Load) =>
  `${model} ${JSON.stringify(flags)}, ${streams} streams, ${cancelled} cut off`;

const LOADS: Load[] = [
  { model: "nvlm-d-tiny", flags: {}, streams: 64, cancelled: 20 },
  { model: "nvlm-x-tiny", flags: { vision: "tensor" }, streams: 48, cancelled: 14 },
  { model: "nvlm-h-tiny", flags: { visionWorkers: 1 }, streams: 48, cancelled: 14 },
];

for (const load of LOADS)
  test(`${nameOf(load)}: as alone, everything released, memory flat from one round to the next`, async () => {
    const served = await serve(2, { model: load.model, flags: load.flags });
    try {
      await round(served, load, 1);
      let before = await round(served, load, 2);
      assert.equal(before.length, 3 + (load.flags.visionWorkers ?? 0));
      const growing = new Set(before.keys());
      for (let i = 3; i <= MAX_ROUNDS && growing.size > 0; i++) {
        const now = await round(served, load, i);
        for (const process of [...growing])
          if ((now[process] ?? NaN) - (before[process] ?? NaN) <= GROWTH_LIMIT_BYTES)
            growing.delete(process);
        before = now;
      }
      assert.deepEqual([...growing], [], "these processes grew in every round");
    } finally {
      await served.stop();
    }
  });
