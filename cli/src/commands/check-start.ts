/** What would be wrong with a start: all of it told at once, before anything is loaded. */
import { shown } from "../config/secret.js";
import { ConfigurationError } from "../config/sources.js";

/** Resolves to what is wrong; what it throws is wrong too. */
export type Check = () => Promise<readonly string[] | undefined>;

/** Runs every check, whatever the others say. @throws ConfigurationError with all problems, each once */
export async function checkAll(checks: readonly Check[]): Promise<void> {
  const problems: string[] = [];
  for (const check of checks)
    try {
      problems.push(...((await check()) ?? []));
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  const told = new Set(problems.map((problem) => shown("", problem)));
  if (told.size > 0) throw new ConfigurationError([...told]);
}
