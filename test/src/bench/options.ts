/** What a run of the benchmarks is asked for. */
import { parseArgs } from "node:util";

const MAX_ROUNDS = 100;

/** What there is to choose from, in the order of a run. */
export interface Names {
  groups: string[];
  models: string[];
}

export function helpText({ groups, models }: Names): string {
  return `usage: node test/dist/bench/main.js [options] [group…]

groups: ${groups.join(", ")} (default: all)
  --rounds <n>     of interleaved measurements, medians are taken over them (default 3)
  --models <list>  of ${models.join(",")} (default: all)
  --markdown       measure nothing: put the figures of the last run into docs/benchmarks.md
`;
}

export interface Wanted {
  groups: string[];
  rounds: number;
  models: string[];
  markdown: boolean;
}

/** Undefined: help is asked for. @throws RangeError naming what is unknown, and what there is. */
export function parseWanted(args: string[], names: Names): Wanted | undefined {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "3" },
      models: { type: "string", default: names.models.join(",") },
      markdown: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const known = (what: string, asked: string[], all: string[]) => {
    const bad = asked.filter((name) => !all.includes(name));
    if (bad.length > 0)
      throw new RangeError(`unknown ${what}: ${bad.join(", ")}; there are ${all.join(", ")}`);
    return all.filter((name) => asked.includes(name));
  };
  const rounds = Number(values.rounds);
  if (!Number.isSafeInteger(rounds) || rounds < 1 || rounds > MAX_ROUNDS)
    throw new RangeError(`--rounds ${values.rounds}: must be 1…${MAX_ROUNDS}`);
  return {
    groups: known("group", positionals.length > 0 ? positionals : names.groups, names.groups),
    rounds,
    models: known("model", values.models.split(","), names.models),
    markdown: values.markdown,
  };
}
