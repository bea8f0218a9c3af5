/** What a look at this machine finds, and how much it matters. */

/** `missing`: Tessera does not run without it. `note`: it runs, and this is worth knowing. */
export type FactState = "ok" | "note" | "missing";

export interface Fact {
  name: string;
  state: FactState;
  value: string;
  /** What to do about it. */
  hint?: string;
}

export function ok(name: string, value: string): Fact {
  return { name, state: "ok", value };
}
export function note(name: string, value: string, hint?: string): Fact {
  return { name, state: "note", value, ...(hint === undefined ? {} : { hint }) };
}
export function missing(name: string, value: string, hint: string): Fact {
  return { name, state: "missing", value, hint };
}

/** The first number with dots in a program's `--version`. */
export function versionIn(text: string): string | undefined {
  return /\d+(?:\.\d+)+/.exec(text)?.[0];
}

/** Whether `version` is at least `least`, number by number. */
export function atLeast(version: string, least: string): boolean {
  const [have, want] = [version, least].map((text) => text.split(".").map(Number));
  for (const [i, number] of (want ?? []).entries()) {
    const other = have?.[i] ?? 0;
    if (other !== number) return other > number;
  }
  return true;
}

const MARKS = { ok: "  ok", note: "note", missing: "MISS" } as const;

/** Lines for people. */
export function describeFacts(facts: readonly Fact[]): string {
  const width = Math.max(...facts.map(({ name }) => name.length));
  const lines = facts.flatMap(({ name, state, value, hint }) => [
    `${MARKS[state]}  ${name.padEnd(width)}  ${value}`,
    ...(hint === undefined ? [] : [`      ${"".padEnd(width)}  → ${hint}`]),
  ]);
  const lost = facts.filter(({ state }) => state === "missing").map(({ name }) => name);
  const end = lost.length === 0 ? "Tessera runs here." : `Missing: ${lost.join(", ")}.`;
  return `${lines.join("\n")}\n${end}\n`;
}
