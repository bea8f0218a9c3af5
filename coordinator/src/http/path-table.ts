/** Which methods each path is served with. */

export class PathTable {
  private readonly methods = new Map<string, Set<string>>();

  /** `:name` stands for one part of a path. */
  add(pattern: string, methods: string[]): void {
    const known = this.methods.get(pattern) ?? new Set();
    for (const method of methods) known.add(method);
    this.methods.set(pattern, known);
  }

  methodsOf(path: string): string[] {
    const given = path.split("/");
    const fits = (pattern: string) => {
      const parts = pattern.split("/");
      return (
        parts.length === given.length &&
        parts.every((part, i) => part === given[i] || (part.startsWith(":") && given[i] !== ""))
      );
    };
    const found = [...this.methods].filter(([pattern]) => fits(pattern));
    return [...new Set(found.flatMap(([, methods]) => [...methods]))].sort();
  }
}
