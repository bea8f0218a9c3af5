/** One measured figure, as it stands in build/bench.json. */

export interface Figure {
  /** `group.what.where`, unique in a run. */
  name: string;
  value: number;
  unit: string;
  /** How it is measured; of a ratio, what it is taken to. */
  measure: string;
  /** Null: none is set. */
  goal: number | null;
  reached: boolean | null;
}

export type Goal = { atLeast: number } | { atMost: number };

export function figure(
  what: Pick<Figure, "name" | "value" | "unit" | "measure">,
  goal?: Goal,
): Figure {
  const { name, value, unit, measure } = what;
  if (goal === undefined) return { name, value, unit, measure, goal: null, reached: null };
  return "atLeast" in goal
    ? { name, value, unit, measure, goal: goal.atLeast, reached: value >= goal.atLeast }
    : { name, value, unit, measure, goal: goal.atMost, reached: value <= goal.atMost };
}

/** `≥ 0.75`, `≤ 1`, or nothing. Which way a goal points follows from value, goal and whether it is reached. */
export function goalText({ value, goal, reached }: Figure): string {
  if (goal === null) return "";
  return `${reached === value >= goal ? "≥" : "≤"} ${goal}`;
}

function isFigure(entry: unknown): entry is Figure {
  if (typeof entry !== "object" || entry === null) return false;
  const { name, value, unit, measure, goal, reached } = entry as Record<string, unknown>;
  const texts = [name, unit, measure].every((text) => typeof text === "string" && text !== "");
  const goals =
    goal === null ? reached === null : Number.isFinite(goal) && typeof reached === "boolean";
  return texts && Number.isFinite(value) && goals && Object.keys(entry).length === 6;
}

/** The list as it is read back. @throws RangeError naming the entry that is no figure, or a name that stands twice. */
export function checkFigures(json: unknown): Figure[] {
  if (!Array.isArray(json)) throw new RangeError("bench.json: must be a list");
  const names = new Set<string>();
  return json.map((entry: unknown, i) => {
    if (!isFigure(entry)) throw new RangeError(`bench.json: entry ${i}: ${JSON.stringify(entry)}`);
    if (names.has(entry.name)) throw new RangeError(`bench.json: ${entry.name} stands twice`);
    names.add(entry.name);
    return entry;
  });
}

/** A line of a native benchmark: `{name, value, unit, measure, goal?}`, where a goal is a least value. */
export function parseLine(line: string): Figure {
  const fail = (): never => {
    throw new RangeError(`no figure: ${line.slice(0, 200)}`);
  };
  let entry: Partial<Figure>;
  try {
    entry = JSON.parse(line) as Partial<Figure>;
  } catch {
    return fail();
  }
  const { name = "", value = NaN, unit = "", measure = "", goal } = entry;
  const made = figure(
    { name, value, unit, measure },
    typeof goal === "number" ? { atLeast: goal } : undefined,
  );
  return isFigure(made) ? made : fail();
}
