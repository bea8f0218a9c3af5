/** Prometheus' text format, as a process exports it. */

export interface Family {
  name: string;
  type: string;
  help: string;
  /** Names of labels, `le` aside; sorted. */
  labels: string[];
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;

function parseLabels(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
  ) as Record<string, string>;
}

/** In the order they are exported. */
export function families(text: string): Family[] {
  const found: Family[] = [];
  for (const line of text.split("\n")) {
    const [, keyword, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    const family = found.at(-1);
    if (keyword === "HELP") found.push({ name, type: "", help: rest, labels: [], samples: [] });
    else if (keyword === "TYPE" && family !== undefined) family.type = rest;
    const [, sample, labels = "", value] = SAMPLE.exec(line) ?? [];
    if (sample === undefined || family === undefined) continue;
    family.samples.push({ name: sample, labels: parseLabels(labels), value: Number(value) });
  }
  for (const family of found) {
    const names = family.samples.flatMap(({ labels }) => Object.keys(labels));
    family.labels = [...new Set(names)].filter((name) => name !== "le").sort();
  }
  return found;
}

/** A counter's or gauge's value, or a histogram's count, under the labels. NaN when there is none. */
export function valueOf(text: string, name: string, labels: Record<string, string> = {}): number {
  const samples = families(text).flatMap((family) => family.samples);
  const wanted = Object.entries(labels);
  const found = samples.find(
    (sample) =>
      (sample.name === name || sample.name === `${name}_count`) &&
      wanted.every(([key, value]) => sample.labels[key] === value),
  );
  return found?.value ?? NaN;
}
