/** Decoding without pictures: X and H cost what their decoder costs, D's. */
import type { BenchContext } from "../../context.js";
import { figure, type Figure } from "../../figure.js";
import { largeVariant, VARIANTS, type Variant } from "../../models.js";
import { startServing, stream, type Serving } from "../../serve.js";
import { median, medianError } from "../../statistics.js";

const STREAMS = [1, 8] as const;
/** Only decoding is measured. */
const PROMPT_TOKENS = 4;
/** Short, so that a pair is measured within a second, and the machine is the same for both. */
const TOKENS = 12;
/** Of a round: with a spread of 4 % between pairs the median of 3 rounds is good to 0.9 %. */
const PAIRS = 10;
const GOAL = { atLeast: 0.98 };

interface Case {
  variant: Variant;
  serving: Serving;
  /** Tokens a second of every run, by streams. */
  rates: Record<(typeof STREAMS)[number], number[]>;
}

/** No block of the cross cache, held or kept; nor were any asked for. */
async function assertNoCross({ variant, serving: { client } }: Case): Promise<void> {
  const { placement, load } = await client.getCluster();
  const blocks = placement?.crossBlockCount ?? 0;
  if (blocks === 0 && variant !== "d") throw new Error(`${variant}: no cross cache is planned`);
  const used = (load?.usedCrossBlocks ?? NaN) + (load?.idleCrossBlocks ?? NaN);
  if (used !== 0) throw new Error(`${variant}: text alone uses ${used} blocks of the cross cache`);
}

/** Tokens a second from when every stream has its first token. */
async function decode(one: Case, streams: number, seed: number): Promise<number> {
  const lists = await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      stream(one.serving.client, {
        promptTokens: PROMPT_TOKENS,
        maxTokens: TOKENS,
        seed: 32 * seed + i,
      }),
    ),
  );
  const start = Math.max(...lists.map((list) => list[0] ?? NaN));
  const later = lists.flat().filter((at) => at > start);
  return (later.length * 1e3) / (Math.max(...later) - start);
}

/** Looks at the cache while a stream runs. */
async function checkCache(one: Case): Promise<void> {
  const looks: Promise<void>[] = [];
  const onToken = (index: number) => {
    if (index === TOKENS / 2) looks.push(assertNoCross(one));
  };
  const request = { promptTokens: PROMPT_TOKENS, maxTokens: TOKENS, seed: 1, onToken };
  await stream(one.serving.client, request);
  await Promise.all(looks);
}

/** In each pair another variant is first, so that what the one leaves to the next evens out. */
async function measure(cases: Case[], { rounds, log }: BenchContext): Promise<void> {
  for (const one of cases) {
    await checkCache(one);
    for (const streams of STREAMS) await decode(one, streams, 0); // warms up
  }
  for (let pair = 0; pair < PAIRS * rounds; pair++)
    for (const streams of STREAMS)
      for (let i = 0; i < cases.length; i++) {
        const one = cases[(pair + i) % cases.length];
        one?.rates[streams].push(await decode(one, streams, pair));
      }
  for (const one of cases) {
    await assertNoCross(one);
    const text = STREAMS.map((n) => median(one.rates[n]).toFixed(1)).join(", ");
    log(`text_only.${one.variant}: ${text} tokens/s of ${STREAMS.join(", ")} streams`);
  }
}

function figuresOf(one: Case, base: Case): Figure[] {
  return STREAMS.map((streams) => {
    const ratios = one.rates[streams].map((rate, i) => rate / (base.rates[streams][i] ?? NaN));
    const rates = [one, base].map(({ rates }) => median(rates[streams]).toFixed(1)).join(" to ");
    return figure(
      {
        name: `images.text_only.${one.variant}.decode_${streams}`,
        value: median(ratios),
        unit: "ratio",
        measure:
          `tokens a second of ${streams} ${streams === 1 ? "stream" : "streams"} without pictures, ` +
          `0.5b, 1 worker, to D's on the same decoder in turn ` +
          `(${rates} tokens/s; ${ratios.length} pairs, standard error ${(100 * medianError(ratios)).toFixed(2)} %)`,
      },
      GOAL,
    );
  });
}

export async function textOnly(context: BenchContext): Promise<Figure[]> {
  const cases: Case[] = [];
  try {
    for (const variant of VARIANTS) {
      const serving = await startServing(largeVariant(variant), 1);
      cases.push({ variant, serving, rates: { 1: [], 8: [] } });
    }
    await measure(cases, context);
    const [base, ...others] = cases;
    return base === undefined ? [] : others.flatMap((one) => figuresOf(one, base));
  } finally {
    await Promise.all(cases.map(({ serving }) => serving.stop()));
  }
}
