/** Columns of text, and numbers as people read them. */

/** Rows in columns as wide as their widest cell; `right`: the columns that are set to the right. */
export function columns(rows: string[][], right: number[]): string[] {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, i) =>
    Math.max(...rows.map((row) => row[i]?.length ?? 0)),
  );
  const set = (cell: string, i: number) =>
    right.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0);
  return rows.map((row) => row.map(set).join("  ").trimEnd());
}

/** Three digits of a value in the largest unit of which there is a whole one. */
function inUnits(value: number, step: number, units: string[]): string {
  let at = 0;
  let rest = value;
  while (at + 1 < units.length && rest >= step) {
    rest /= step;
    at++;
  }
  const digits = Number.isInteger(rest) ? 0 : rest < 10 ? 2 : rest < 100 ? 1 : 0;
  return `${rest.toFixed(digits)} ${units[at]}`;
}

/** In units of 1024 bytes and so on. */
export function bytesText(bytes: number): string {
  return inUnits(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

export function flopsText(flops: number): string {
  return inUnits(flops, 1000, ["flop", "kflop", "Mflop", "Gflop", "Tflop", "Pflop"]);
}
