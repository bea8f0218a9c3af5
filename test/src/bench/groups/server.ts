/** What users of a busy server feel: batches, prompts that are known, schemas, refusals. */
import { performance } from "node:perf_hooks";
import { TesseraError } from "@tessera/client";
import { Role, type GenerateInput } from "@tessera/client";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { benchModels } from "../models.js";
import { startServing, stream, type Serving } from "../serve.js";
import { median, percentile } from "../statistics.js";

const BATCH = 16;
const BATCH_TOKENS = 16;
const PREFIX_TOKENS = 1024;

/** Tokens a second of so many streams, from the moment every stream has its first token. */
async function decodeRate({ client }: Serving, streams: number, seed: number): Promise<number> {
  const arrivals = await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      stream(client, { promptTokens: 16, maxTokens: BATCH_TOKENS, seed: 100 * seed + i }),
    ),
  );
  const start = Math.max(...arrivals.map((list) => list[0] ?? NaN));
  const later = arrivals.flat().filter((at) => at > start);
  return (later.length * 1e3) / (Math.max(...later) - start);
}

async function batch(serving: Serving, model: string, { rounds, log }: BenchContext) {
  await decodeRate(serving, BATCH, 999); // warms up
  const rates: [one: number, many: number][] = [];
  for (let round = 0; round < rounds; round++)
    rates.push([
      await decodeRate(serving, 1, 2 * round),
      await decodeRate(serving, BATCH, 2 * round + 1),
    ]);
  const gain = median(rates.map(([one, many]) => many / one));
  log(`server: ${BATCH} streams ${gain.toFixed(2)} times one`);
  return figure(
    {
      name: `server.${model}.batch_gain_${BATCH}`,
      value: gain,
      unit: "ratio",
      measure: `tokens a second of ${BATCH} streams, to those of one in turn, 1 worker, all cores`,
    },
    { atLeast: 3 },
  );
}

async function firstTokenMs({ client }: Serving, seed: number): Promise<number> {
  const start = performance.now();
  const [first = NaN] = await stream(client, { promptTokens: PREFIX_TOKENS, maxTokens: 1, seed });
  return first - start;
}

async function prefix(serving: Serving, model: string, { rounds, log }: BenchContext) {
  const times: [cold: number, warm: number][] = [];
  for (let round = 0; round < rounds; round++)
    times.push([
      await firstTokenMs(serving, 5000 + round),
      await firstTokenMs(serving, 5000 + round),
    ]);
  const [cold, warm] = [0, 1].map((i) => median(times.map((pair) => pair[i] ?? NaN)));
  log(`server: first token ${cold?.toFixed(0)} ms, ${warm?.toFixed(0)} ms when it is known`);
  const what = `first token of a prompt of ${PREFIX_TOKENS} tokens, 1 worker`;
  return [
    figure({
      name: `server.${model}.first_token.cold`,
      value: cold ?? NaN,
      unit: "ms",
      measure: what,
    }),
    figure({
      name: `server.${model}.first_token.prefix_hit`,
      value: warm ?? NaN,
      unit: "ms",
      measure: `the same prompt again: ${what}`,
    }),
  ];
}

const SCHEMA = JSON.stringify({
  type: "array",
  items: { type: "object", properties: { a: { type: "string" }, b: { type: "integer" } } },
  minItems: 40,
});

/** Tokens a second of a batch of sampled answers, all under a schema or none. */
async function schemaRate({ client }: Serving, constrained: boolean, seed: number) {
  const parts = [{ content: { case: "text" as const, value: "Write a list." } }];
  const tokens = 48;
  const request = (i: number): GenerateInput => ({
    messages: [{ role: Role.USER, parts }],
    maxTokens: tokens,
    returnTokenIds: true,
    sampling: { temperature: 1, seed: BigInt(1000 * seed + i) },
    ...(constrained ? { constraint: { kind: { case: "jsonSchema", value: SCHEMA } } } : {}),
    ...(constrained ? {} : { stop: { ignoreEos: true } }),
  });
  const arrivals = await Promise.all(
    Array.from({ length: BATCH }, async (_, i) => {
      const at: number[] = [];
      for await (const { kind } of client.generate(request(i)))
        if (kind.case === "delta") at.push(...kind.value.tokenIds.map(() => performance.now()));
      return at;
    }),
  );
  const start = Math.max(...arrivals.map((list) => list[0] ?? NaN));
  const end = Math.min(...arrivals.map((list) => list.at(-1) ?? NaN));
  const later = arrivals.flat().filter((at) => at > start && at <= end);
  return (later.length * 1e3) / (end - start);
}

async function schema(serving: Serving, model: string, { rounds, log }: BenchContext) {
  await schemaRate(serving, true, 999); // compiles
  const rates: [plain: number, constrained: number][] = [];
  for (let round = 0; round < rounds; round++)
    rates.push([await schemaRate(serving, false, round), await schemaRate(serving, true, round)]);
  const ratio = median(rates.map(([plain, constrained]) => constrained / plain));
  log(`server: throughput under a schema ${ratio.toFixed(3)} of that without`);
  return figure(
    {
      name: `server.${model}.schema_throughput`,
      value: ratio,
      unit: "ratio",
      measure: `tokens a second of ${BATCH} streams under a JSON schema at a vocabulary of 151,936, to those without`,
    },
    { atLeast: 0.95 },
  );
}

const FLOOD_MS = 5000;
/** So many times what the server answers. */
const FLOOD = 10;
const PLACES = 16;

/** Milliseconds of every refusal while a server with all places taken is asked ten times as often as it can answer. */
async function refusals(rate: number, { client }: Serving): Promise<number[]> {
  const ended: Promise<void>[] = [];
  const times: number[] = [];
  const ask = async () => {
    const start = performance.now();
    try {
      await stream(client, { promptTokens: 32, maxTokens: 32, seed: ended.length });
    } catch (error) {
      if (!(error instanceof TesseraError) || error.code !== "OVERLOADED") throw error;
      times.push(performance.now() - start);
    }
  };
  const begin = performance.now();
  for (let due = begin; due < begin + FLOOD_MS; due += 1e3 / rate) {
    const wait = due - performance.now();
    if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
    ended.push(ask());
  }
  await Promise.all(ended);
  return times;
}

async function flood({ log }: BenchContext): Promise<Figure[]> {
  const [tiny] = benchModels(["tiny"]);
  if (tiny === undefined) return [];
  const flags = { maxRequests: PLACES };
  const serving = await startServing(tiny.dir, 1, { threads: 1, flags, maxAttempts: 1 });
  try {
    const start = performance.now();
    const one = (i: number) =>
      stream(serving.client, { promptTokens: 32, maxTokens: 32, seed: 10_000 + i });
    await Promise.all(Array.from({ length: PLACES }, (_, i) => one(i)));
    await Promise.all(Array.from({ length: PLACES }, (_, i) => one(PLACES + i)));
    const capacity = (2 * PLACES * 1e3) / (performance.now() - start);
    const times = await refusals(FLOOD * capacity, serving);
    const p99 = percentile(times, 0.99);
    log(`server: ${times.length} refusals, p99 ${p99.toFixed(1)} ms`);
    return [
      figure(
        {
          name: "server.tiny.refusal_p99",
          value: p99,
          unit: "ms",
          measure:
            `of ${times.length} refusals at ${FLOOD} times what the server answers (${capacity.toFixed(0)} a second), ` +
            `1 worker of 1 thread, --max-requests ${PLACES}; the client is one process on the same cores`,
        },
        { atMost: 50 },
      ),
    ];
  } finally {
    await serving.stop();
  }
}

export async function server(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  const [large] = benchModels(context.models.filter((name) => name === "0.5b"));
  if (large !== undefined) {
    const serving = await startServing(large.dir, 1);
    try {
      figures.push(await batch(serving, large.name, context));
      figures.push(...(await prefix(serving, large.name, context)));
      figures.push(await schema(serving, large.name, context));
    } finally {
      await serving.stop();
    }
  }
  if (context.models.includes("tiny")) figures.push(...(await flood(context)));
  return figures;
}
