import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { root } from "./paths.js";

const FOLDERS = [
  ...(process.env["PATH"] ?? "").split(":"),
  "/usr/sbin",
  root("build/deps/usr/bin"),
  root("build/deps/usr/sbin"),
];

function runs(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Path of a program that `make test-deps` brings. @throws Error naming it when it is missing. */
export function program(name: string): string {
  const path = FOLDERS.map((folder) => join(folder, name)).find(runs);
  if (path === undefined) throw new Error(`${name} is missing: run \`make test-deps\``);
  return path;
}
