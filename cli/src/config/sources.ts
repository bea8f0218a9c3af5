/** What the sources of settings have in common. */

/** A value as it stands in a source. */
export interface Found {
  /** Texts, or on and off. */
  value: string[] | boolean;
  /** As it is shown: a variable's name, or file:line. */
  source: string;
}

/** All that is wrong, in the order it is found. */
export class Problems {
  readonly list: string[] = [];

  add(source: string, what: string): void {
    this.list.push(`${source}: ${what}`);
  }
  /** @throws ConfigurationError when there is one */
  check(): void {
    if (this.list.length > 0) throw new ConfigurationError(this.list);
  }
}

/** A start that is refused for what it was told. */
export class ConfigurationError extends Error {
  readonly code = "CONFIGURATION";

  constructor(readonly problems: readonly string[]) {
    const [first = ""] = problems;
    const all = `${problems.length} problems\n${problems.map((each) => `  ${each}`).join("\n")}`;
    super(`CONFIGURATION: ${problems.length === 1 ? first : all}`);
    this.name = "ConfigurationError";
  }
}
