/** The name that was meant. */

/** Insertions, deletions, exchanges of letters that make one of the other. */
export function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const kept = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(kept, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Longer names are nobody's. */
const MAX_NAME = 64;

/** `, did you mean …?`, or nothing where no name is near. */
export function meant(name: string, names: readonly string[]): string {
  if (name.length > MAX_NAME) return "";
  const [nearest] = names
    .map((other) => ({ other, far: distance(name, other) }))
    .sort((a, b) => a.far - b.far);
  if (nearest === undefined || nearest.far > Math.max(2, name.length / 4)) return "";
  return `, did you mean ${nearest.other}?`;
}
