/** Programs on this machine and their versions. */
import { execFile } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { versionIn } from "./facts.js";

const DEADLINE_MS = 5000;
/** Where `make test-deps` unpacks what it brings. */
const UNPACKED = ["bin", "sbin"].map((folder) =>
  fileURLToPath(new URL(`../../../build/deps/usr/${folder}`, import.meta.url)),
);

export interface Program {
  path: string;
  version: string | undefined;
}

/** What a program prints; undefined when it fails or takes longer than 5 s. */
export function outputOf(path: string, args: string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(path, args, { timeout: DEADLINE_MS }, (error, stdout, stderr) =>
      resolve(error === null ? `${stdout}${stderr}` : undefined),
    );
  });
}

/** On the PATH (`path`, as the environment has it), in /usr/sbin, or where `make test-deps` unpacks. */
export async function findProgram(name: string, path: string): Promise<Program | undefined> {
  for (const folder of [...path.split(delimiter), "/usr/sbin", ...UNPACKED]) {
    const candidate = join(folder, name);
    try {
      await access(candidate, constants.X_OK);
    } catch {
      continue;
    }
    const said = await outputOf(candidate, ["--version"]);
    return { path: candidate, version: said === undefined ? undefined : versionIn(said) };
  }
  return undefined;
}
