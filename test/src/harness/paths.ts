import { fileURLToPath } from "node:url";

/** A path in the repository, from its root. */
export function root(path: string): string {
  return fileURLToPath(new URL(`../../../${path}`, import.meta.url));
}
