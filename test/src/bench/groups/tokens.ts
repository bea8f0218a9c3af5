/** Tokens a second, as a client sees them, at 1, 8 and 32 streams. */
import { openModel, rankProgram, type ModelConfig } from "@tessera/model";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { benchModels } from "../models.js";
import { startBench, stream, type BenchCluster } from "../serve.js";
import { median } from "../statistics.js";
import { readCeiling } from "./kernels.js";

const WORKERS = [1, 2];
const STREAMS = [1, 8, 32] as const;
const PROMPT_TOKENS = 16;
const PREFILL_TOKENS = 512;

/** Bytes of weights read for one token: every linear and vector of the step; of the embedding, one row. */
export function bytesPerToken(config: ModelConfig): number {
  const { step } = rankProgram(config, { rank: 0, size: 1 });
  return step.weights.reduce((sum, weight) => {
    if (weight.kind === "table") return sum + 2 * weight.width;
    if (weight.kind === "vector") return sum + 4 * weight.length;
    return sum + 2 * weight.outputs * weight.inputs;
  }, 0);
}

/** Tokens a second from the moment every stream has its first one. */
async function decode(bench: BenchCluster, streams: 1 | 8 | 32, seed: number): Promise<number> {
  const arrivals = await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      stream(bench.client, {
        promptTokens: PROMPT_TOKENS,
        maxTokens: bench.model.decodeTokens[streams],
        seed: 32 * seed + i,
      }),
    ),
  );
  const start = Math.max(...arrivals.map((list) => list[0] ?? NaN));
  const later = arrivals.flat().filter((at) => at > start);
  return (later.length * 1e3) / (Math.max(...later) - start);
}

async function prefill(bench: BenchCluster, seed: number): Promise<number> {
  const start = performance.now();
  const [first = NaN] = await stream(bench.client, {
    promptTokens: PREFILL_TOKENS,
    maxTokens: 1,
    seed,
  });
  return (PREFILL_TOKENS * 1e3) / (first - start);
}

interface Rates {
  bench: BenchCluster;
  decode: Map<number, number[]>;
  prefill: number[];
}

/** The clusters take turns: an idle one costs no processor time. */
async function measure(all: Rates[], { rounds, log }: BenchContext): Promise<void> {
  for (const { bench } of all) await decode(bench, 8, rounds); // warms up
  for (let round = 0; round < rounds; round++)
    for (const rates of all) {
      const { bench } = rates;
      for (const streams of STREAMS)
        rates.decode.get(streams)?.push(await decode(bench, streams, round));
      rates.prefill.push(await prefill(bench, round));
      const line = [...rates.decode.values()].map((list) => list.at(-1)?.toFixed(1)).join(", ");
      const place = `${bench.model.name}.${bench.workers}w, round ${round + 1}`;
      log(`${place}: ${line}; prefill ${rates.prefill.at(-1)?.toFixed(0)} tokens/s`);
    }
}

function figuresOf({ bench, decode: rates, prefill: prefills }: Rates): Figure[] {
  const name = `tokens.${bench.model.name}.${bench.workers}w`;
  const unit = "tokens/s";
  return [
    ...[...rates].map(([streams, values]) =>
      figure({
        name: `${name}.decode_${streams}`,
        value: median(values),
        unit,
        measure: `all tokens of ${streams} streams together, from when each has its first one`,
      }),
    ),
    figure({
      name: `${name}.prefill`,
      value: median(prefills),
      unit,
      measure: `prompt of ${PREFILL_TOKENS} tokens, over the time to its first token`,
    }),
  ];
}

async function readShare(rates: Rates, ceiling: number): Promise<Figure> {
  const { model, workers } = rates.bench;
  const bytes = bytesPerToken((await openModel(model.dir)).config);
  return figure({
    name: `tokens.${model.name}.${workers}w.read_share`,
    value: (bytes * median(rates.decode.get(1) ?? [])) / ceiling,
    unit: "ratio",
    measure: `bytes of weights read for the tokens of 1 stream, to the read ceiling of this run`,
  });
}

export async function tokens(context: BenchContext): Promise<Figure[]> {
  const all: Rates[] = [];
  try {
    for (const model of benchModels(context.models))
      for (const workers of WORKERS)
        all.push({
          bench: await startBench(model, workers),
          decode: new Map(STREAMS.map((streams) => [streams, []])),
          prefill: [],
        });
    await measure(all, context);
    const ceiling = readCeiling(context.figures);
    const shares =
      ceiling === undefined ? [] : await Promise.all(all.map((one) => readShare(one, ceiling)));
    return [...all.flatMap(figuresOf), ...shares];
  } finally {
    await Promise.all(all.map(({ bench }) => bench.stop()));
  }
}
