/** Figures as people read them. */
import { goalText, type Figure } from "./figure.js";
import type { Machine } from "./machine.js";

/** Three or more digits, no exponent. */
function number(value: number): string {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

function verdict({ reached }: Figure): string {
  return reached === null ? "" : reached ? "reached" : "MISSED";
}

export function machineText(machine: Machine): string {
  const { cpu, cores, memoryGiB, kernels, node, system, loadBefore, date } = machine;
  return (
    `${date}: ${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernels} kernels, Node ${node}, ${system}, ` +
    `load before the run ${loadBefore}`
  );
}

/** One line a figure, in columns. */
export function table(figures: Figure[]): string {
  const rows = figures.map((figure) => [
    figure.name,
    number(figure.value),
    figure.unit,
    goalText(figure),
    verdict(figure),
  ]);
  const widths = [0, 1, 2, 3].map((column) =>
    Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows
    .map(([name = "", value = "", unit = "", goal = "", said = ""]) =>
      [
        name.padEnd(widths[0] ?? 0),
        value.padStart(widths[1] ?? 0),
        unit.padEnd(widths[2] ?? 0),
        goal.padEnd(widths[3] ?? 0),
        said,
      ]
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The table of docs/benchmarks.md. */
export function markdown(figures: Figure[], machine: Machine): string {
  const rows = figures.map(
    (figure) =>
      `| ${figure.name} | ${number(figure.value)} | ${figure.unit} | ${goalText(figure)} | ` +
      `${verdict(figure)} | ${figure.measure} |`,
  );
  return [
    machineText(machine),
    "",
    "| figure | value | unit | goal | | measured as |",
    "|---|---:|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

const MARKS = ["<!-- figures: from here -->", "<!-- figures: to here -->"] as const;

/** The page with its table exchanged. @throws RangeError when the page has no place for it. */
export function replaceTable(page: string, made: string): string {
  const [start, end] = MARKS.map((mark) => page.indexOf(mark));
  if (start === undefined || end === undefined || start < 0 || end < start)
    throw new RangeError(`the page has no ${MARKS.join(" … ")}`);
  return `${page.slice(0, start + MARKS[0].length)}\n\n${made}\n${page.slice(end)}`;
}
