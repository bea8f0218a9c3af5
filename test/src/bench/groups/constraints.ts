/** Constrained answers at a large vocabulary: what compiling costs, and what 16 matchers add to a step. */
import { GrammarEngine, vocabularyOf } from "@tessera/coordinator/grammar";
import { loadTokenizer } from "@tessera/coordinator/request";
import { root } from "../../harness/paths.js";
import type { BenchContext } from "../context.js";
import { figure, type Figure } from "../figure.js";
import { median, percentile } from "../statistics.js";

const VOCABULARY = 151_936;
const MATCHERS = 16;
const OF = { tenant: "bench", field: "bench" };

const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { type: "string" } },
    address: {
      type: "object",
      properties: { city: { type: "string" }, zip: { type: "string", pattern: "^[0-9]{5}$" } },
      required: ["city", "zip"],
    },
  },
  required: ["name", "age", "tags", "address"],
};
const ANSWER =
  '{"name": "Ada Lovelace of London", "age": 36, "tags": ["mathematics", "engines and looms"], ' +
  '"address": {"city": "London", "zip": "12345"}}';

type Times = Record<"first" | "compile" | "open", number> & { steps: number[] };

async function measure(): Promise<Times> {
  const tokenizer = await loadTokenizer(root("test/fixtures/qwen2-tokenizer"));
  const engine = GrammarEngine.open({
    vocabulary: vocabularyOf(tokenizer),
    selectableIds: VOCABULARY,
    stopTokenIds: [tokenizer.specialId("<|im_end|>")],
  });
  try {
    const compile = (schema: object) => {
      const spec = { kind: "json_schema" as const, schema: JSON.stringify(schema) };
      return engine.compile(spec, { ...OF, signal: AbortSignal.timeout(60_000) });
    };
    const first = await timed(() => compile({ type: "object" }));
    await compile({ type: "array" });
    let grammar = await compile({ type: "integer" });
    const compileMs = await timed(async () => (grammar = await compile(SCHEMA)));
    let matchers = [grammar.open()];
    await matchers[0]?.ready;
    const open = await timed(async () => {
      matchers = Array.from({ length: MATCHERS }, () => grammar.open());
      await Promise.all(matchers.map(({ ready }) => ready));
    });
    const steps: number[] = [];
    for (const token of tokenizer.encode(ANSWER, { special: false }))
      steps.push(
        await timed(async () => {
          for (const matcher of matchers) matcher.accept(token);
          await Promise.all(matchers.map(({ ready }) => ready));
        }),
      );
    return { first, compile: compileMs, open, steps };
  } finally {
    await engine.close();
  }
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

export async function constraints({ rounds, log }: BenchContext): Promise<Figure[]> {
  const all: Times[] = [];
  for (let round = 0; round < rounds; round++) {
    all.push(await measure());
    log(`round ${round + 1}`);
  }
  const steps = all.flatMap((each) => each.steps);
  const ms = (name: string, value: number, measure: string) =>
    figure({ name: `constraints.${name}.151936`, value, unit: "ms", measure });
  return [
    ms("first", median(all.map((each) => each.first)), "first constraint, threads started"),
    ms("compile", median(all.map((each) => each.compile)), "a schema of four properties"),
    ms("open_16", median(all.map((each) => each.open)), "first masks of 16 matchers"),
    ms("step_16", median(steps), "accept to the last of 16 masks"),
    ms("step_16_p99", percentile(steps, 0.99), "accept to the last of 16 masks"),
  ];
}
