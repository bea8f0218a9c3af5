/** `--speculate 4` against none, for one stream: text that repeats what was before, and text of which nothing can be guessed. */
import type { GenerateInput } from "@tessera/client";
import type { BenchContext } from "../context.js";
import { figure, type Figure, type Goal } from "../figure.js";
import { benchModels, type BenchModel } from "../models.js";
import { scrape, startServing, type Serving } from "../serve.js";
import { median } from "../statistics.js";

const DRAFTS = 4;
const TOKENS = 96;
const PROMPT_TOKENS = 64;
/** Of the texts that are drawn from few ids: pairs of them come again by chance. */
const FEW_IDS = 8;
const COPIED_ID = 321;

interface Kind {
  name: string;
  measure: string;
  goal: Goal;
  request: (seed: number) => GenerateInput;
}

/** Ids that differ between seeds, so that no cache of prompts can answer. */
function promptOf(seed: number): number[] {
  return Array.from(
    { length: PROMPT_TOKENS },
    (_, i) => 10 + (((seed + 1) * 7919 + i * 104_729) % 900),
  );
}

const common = { maxTokens: TOKENS, returnTokenIds: true, stop: { ignoreEos: true } };

const KINDS: Kind[] = [
  {
    name: "copied",
    measure: "an answer of one id, which its prompt ends with: every guess comes true",
    goal: { atLeast: 1.5 },
    request: (seed) => ({
      ...common,
      tokenIds: [...promptOf(seed), ...Array.from({ length: 8 }, () => COPIED_ID)],
      sampling: { allowedTokenIds: [COPIED_ID] },
    }),
  },
  {
    name: "random",
    measure: "ids drawn from a vocabulary of 151,936: nothing comes again",
    goal: { atLeast: 0.97 },
    request: (seed) => ({
      ...common,
      tokenIds: promptOf(seed),
      sampling: { temperature: 50, seed: BigInt(seed) },
    }),
  },
  {
    name: "random_few",
    measure: `ids drawn from ${FEW_IDS}: pairs come again and again, and what follows them is chance`,
    goal: { atLeast: 0.97 },
    request: (seed) => ({
      ...common,
      tokenIds: promptOf(seed),
      sampling: {
        temperature: 50,
        seed: BigInt(seed),
        allowedTokenIds: Array.from({ length: FEW_IDS }, (_, i) => 1000 + i),
      },
    }),
  },
];

/** Tokens a second from the first one on. */
async function rate({ client }: Serving, request: GenerateInput): Promise<number> {
  const arrivals: number[] = [];
  for await (const { kind } of client.generate(request))
    if (kind.case === "delta")
      for (const _ of kind.value.tokenIds) arrivals.push(performance.now());
  const [first = NaN] = arrivals;
  if (arrivals.length !== TOKENS)
    throw new Error(`a stream ended after ${arrivals.length} tokens of ${TOKENS}`);
  return ((TOKENS - 1) * 1e3) / ((arrivals.at(-1) ?? NaN) - first);
}

const COUNTERS = ["draft_tokens", "accepted_tokens"].map(
  (what) => `tessera_spec_decode_num_${what}_total`,
);

async function measure(
  kind: Kind,
  [plain, guessing]: [Serving, Serving],
  { model, context }: { model: BenchModel; context: BenchContext },
): Promise<Figure[]> {
  const { rounds, log } = context;
  await rate(plain, kind.request(999)); // warms up
  await rate(guessing, kind.request(999));
  const before = await scrape(guessing.cluster, COUNTERS);
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // Each is first in every other round.
    const order = round % 2 === 0 ? [plain, guessing] : [guessing, plain];
    const rates = new Map<Serving, number>();
    for (const one of order) rates.set(one, await rate(one, kind.request(round)));
    ratios.push((rates.get(guessing) ?? NaN) / (rates.get(plain) ?? NaN));
  }
  const after = await scrape(guessing.cluster, COUNTERS);
  const [drafts = 0, accepted = 0] = after.map((value, i) => value - (before[i] ?? 0));
  const ratio = median(ratios);
  log(`speculation: ${kind.name} ${ratio.toFixed(3)}, ${accepted} of ${drafts} guesses came true`);
  return [
    figure(
      {
        name: `speculation.${model.name}.${kind.name}`,
        value: ratio,
        unit: "ratio",
        measure:
          `tokens a second of one stream with --speculate ${DRAFTS} to those without, in turn; 1 worker, all cores; ` +
          `${kind.measure} (${accepted} of ${drafts} guesses did)`,
      },
      kind.goal,
    ),
  ];
}

export async function speculation(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  const [model] = benchModels(context.models.filter((name) => name === "0.5b"));
  if (model === undefined) return figures;
  const plain = await startServing(model.dir, 1);
  try {
    const guessing = await startServing(model.dir, 1, { flags: { speculate: DRAFTS } });
    try {
      for (const kind of KINDS)
        figures.push(...(await measure(kind, [plain, guessing], { model, context })));
    } finally {
      await guessing.stop();
    }
  } finally {
    await plain.stop();
  }
  return figures;
}
