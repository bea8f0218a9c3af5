/** Test cases in which every pair of values of two factors occurs together. */

/** Values by factor. */
export type Factors<T> = { readonly [K in keyof T]: readonly T[K][] };

/** Every combination that is possible. */
export function combinations<T extends object>(
  factors: Factors<T>,
  possible: (one: T) => boolean = () => true,
): T[] {
  const names = Object.keys(factors) as (keyof T)[];
  const all = names.reduce<Partial<T>[]>(
    (partial, name) => partial.flatMap((one) => factors[name].map((v) => ({ ...one, [name]: v }))),
    [{}],
  );
  return (all as T[]).filter(possible);
}

/** Names of the pairs of a case: factor, value, factor, value. */
export function pairsOf<T extends object>(one: T): string[] {
  const entries = Object.entries(one).map((entry) => JSON.stringify(entry));
  return entries.flatMap((a, i) => entries.slice(i + 1).map((b) => `${a}${b}`));
}

/** Few cases that hold every pair that any possible case holds; greedy, the same each time. */
export function pairwise<T extends object>(
  factors: Factors<T>,
  possible: (one: T) => boolean = () => true,
): T[] {
  const all = combinations(factors, possible);
  const open = new Set(all.flatMap(pairsOf));
  const cover: T[] = [];
  const gain = (one: T) => pairsOf(one).filter((pair) => open.has(pair)).length;
  while (open.size > 0) {
    const best = all.reduce((a, b) => (gain(b) > gain(a) ? b : a));
    cover.push(best);
    for (const pair of pairsOf(best)) open.delete(pair);
  }
  return cover;
}
