/**
 * `make bench`: runs groups of measurements, prints each figure beside its goal, and writes build/bench.json.
 * A further group is a file in groups/ that exports a `Group`, and a line in GROUPS.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { root } from "../harness/paths.js";
import type { Group } from "./context.js";
import { checkFigures, type Figure } from "./figure.js";
import { constraints } from "./groups/constraints.js";
import { coordinator } from "./groups/coordinator.js";
import { exchange } from "./groups/exchange.js";
import { images } from "./groups/images.js";
import { kernels } from "./groups/kernels.js";
import { memory } from "./groups/memory.js";
import { server } from "./groups/server.js";
import { speculation } from "./groups/speculation.js";
import { start } from "./groups/start.js";
import { tokens } from "./groups/tokens.js";
import { vision } from "./groups/vision.js";
import { describeMachine, type Machine } from "./machine.js";
import { MODEL_NAMES } from "./models.js";
import { helpText, parseWanted, type Wanted } from "./options.js";
import { machineText, markdown, replaceTable, table } from "./report.js";

/** In this order: `tokens`, `vision` and `images` take their ceilings from `kernels`. */
const GROUPS: Record<string, Group> = {
  kernels,
  exchange,
  coordinator,
  constraints,
  tokens,
  vision,
  images,
  server,
  speculation,
  start,
  memory,
};
const FIGURES = root("build/bench.json");
const MACHINE = root("build/bench-machine.json");
const PAGE = root("docs/benchmarks.md");
const NAMES = { groups: Object.keys(GROUPS), models: MODEL_NAMES };

async function runGroups({ groups, rounds, models }: Wanted) {
  const figures: Figure[] = [];
  const failed: string[] = [];
  for (const name of groups) {
    const log = (text: string) => void process.stderr.write(`  ${text}\n`);
    process.stderr.write(`${name}\n`);
    try {
      const made = (await GROUPS[name]?.({ rounds, models, figures, log })) ?? [];
      checkFigures([...figures, ...made]);
      figures.push(...made);
    } catch (error) {
      failed.push(name);
      process.stderr.write(
        `${name} FAILED: ${error instanceof Error ? error.stack : String(error)}\n`,
      );
    }
  }
  return { figures, failed };
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
  const wanted = parseWanted(args, NAMES);
  if (wanted === undefined) {
    process.stdout.write(helpText(NAMES));
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
