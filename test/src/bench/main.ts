/**
 * `make bench`: runs groups of measurements, prints each figure beside its goal, and writes build/bench.json.
 * A further group is a file in groups/ that exports a `Group`, and a line in GROUPS.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { root } from "../harness/paths.js";
import type { Group } from "./context.js";
import { checkFigures, type Figure } from "./figure.js";
import { coordinator } from "./groups/coordinator.js";
import { exchange } from "./groups/exchange.js";
import { kernels } from "./groups/kernels.js";
import { memory } from "./groups/memory.js";
import { start } from "./groups/start.js";
import { tokens } from "./groups/tokens.js";
import { describeMachine, type Machine } from "./machine.js";
import { MODEL_NAMES } from "./models.js";
import { machineText, markdown, replaceTable, table } from "./report.js";

/** In this order: `tokens` takes the read ceiling from `kernels`. */
const GROUPS: Record<string, Group> = { kernels, exchange, coordinator, tokens, start, memory };
const FIGURES = root("build/bench.json");
const MACHINE = root("build/bench-machine.json");
const PAGE = root("docs/benchmarks.md");
const MAX_ROUNDS = 100;

const HELP = `usage: node test/dist/bench/main.js [options] [group…]

groups: ${Object.keys(GROUPS).join(", ")} (default: all)
  --rounds <n>     of interleaved measurements, medians are taken over them (default 3)
  --models <list>  of ${MODEL_NAMES.join(",")} (default: all)
  --markdown       measure nothing: put the figures of the last run into docs/benchmarks.md
`;

interface Wanted {
  groups: string[];
  rounds: number;
  models: string[];
  markdown: boolean;
}

/** @throws RangeError naming what is unknown, and what there is. */
function parseWanted(args: string[]): Wanted | undefined {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "3" },
      models: { type: "string", default: MODEL_NAMES.join(",") },
      markdown: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const known = (what: string, names: string[], all: string[]) => {
    const bad = names.filter((name) => !all.includes(name));
    if (bad.length > 0)
      throw new RangeError(`unknown ${what}: ${bad.join(", ")}; there are ${all.join(", ")}`);
    return all.filter((name) => names.includes(name));
  };
  const rounds = Number(values.rounds);
  if (!Number.isSafeInteger(rounds) || rounds < 1 || rounds > MAX_ROUNDS)
    throw new RangeError(`--rounds ${values.rounds}: must be 1…${MAX_ROUNDS}`);
  const all = Object.keys(GROUPS);
  return {
    groups: known("group", positionals.length > 0 ? positionals : all, all),
    rounds,
    models: known("model", values.models.split(","), MODEL_NAMES),
    markdown: values.markdown,
  };
}

async function runGroups({ groups, rounds, models }: Wanted) {
  const figures: Figure[] = [];
  const failed: string[] = [];
  for (const name of groups) {
    const log = (text: string) => void process.stderr.write(`  ${text}\n`);
    process.stderr.write(`${name}\n`);
    try {
      figures.push(...((await GROUPS[name]?.({ rounds, models, figures, log })) ?? []));
    } catch (error) {
      failed.push(name);
      process.stderr.write(
        `${name} FAILED: ${error instanceof Error ? error.stack : String(error)}\n`,
      );
    }
  }
  return { figures: checkFigures(figures), failed };
}

async function run(wanted: Wanted): Promise<number> {
  const machine = describeMachine();
  const { figures, failed } = await runGroups(wanted);
  await mkdir(root("build"), { recursive: true });
  await writeFile(FIGURES, `${JSON.stringify(figures, null, 2)}\n`);
  await writeFile(MACHINE, `${JSON.stringify(machine, null, 2)}\n`);
  const missed = figures.filter(({ reached }) => reached === false).length;
  const goals = figures.filter(({ goal }) => goal !== null).length;
  process.stdout.write(`${machineText(machine)}\n\n${table(figures)}\n\n`);
  process.stdout.write(`${goals - missed} of ${goals} goals reached; written to ${FIGURES}\n`);
  if (failed.length > 0) process.stdout.write(`failed: ${failed.join(", ")}\n`);
  return failed.length === 0 ? 0 : 1;
}

async function main(args: string[]): Promise<number> {
  const wanted = parseWanted(args);
  if (wanted === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  if (!wanted.markdown) return run(wanted);
  const figures = checkFigures(JSON.parse(await readFile(FIGURES, "utf8")));
  const machine = JSON.parse(await readFile(MACHINE, "utf8")) as Machine;
  await writeFile(PAGE, replaceTable(await readFile(PAGE, "utf8"), markdown(figures, machine)));
  process.stdout.write(`${figures.length} figures written to ${PAGE}\n`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
