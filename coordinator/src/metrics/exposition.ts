/** OpenMetrics' text → Prometheus' text of version 0.0.4, which knows no exemplars. */

export const PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8";

/** Counters have `_total` in their samples' names alone there; here in HELP and TYPE too. */
export function prometheusText(openMetrics: string): string {
  const counters = new Set(
    [...openMetrics.matchAll(/^# TYPE (\S+) counter$/gm)].map(([, name]) => name),
  );
  return openMetrics
    .split("\n")
    .filter((line) => line !== "# EOF")
    .map((line) => {
      const [, keyword, name, rest] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
      if (keyword !== undefined && counters.has(name)) return `# ${keyword} ${name}_total ${rest}`;
      return line.startsWith("#") ? line : line.replace(/ # \{.*$/, "");
    })
    .join("\n");
}
