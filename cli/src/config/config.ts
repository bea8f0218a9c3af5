/** The only reader of the environment: what a process is told by it, and what it hands on to its children. */
import { readFile, stat } from "node:fs/promises";
import type { Environment } from "./environment.js";

const MAX_FILE_BYTES = 1 << 20;
/** Of those that begin with TESSERA_, what children get from this process's environment. */
const HANDED_ON = ["TESSERA_CPU"];

export function environment(): Environment {
  return process.env;
}

/** A child is told by its flags: variables meant for this process do not reach it. */
export function childEnvironment(
  own: Environment,
  more: Record<string, string> = {},
): Record<string, string | undefined> {
  const kept = Object.entries(own).filter(
    ([name]) => !name.startsWith("TESSERA_") || HANDED_ON.includes(name),
  );
  return { ...Object.fromEntries(kept), ...more };
}

/** @throws Error when the file cannot be read or is too large */
export async function readConfig(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > MAX_FILE_BYTES) throw new Error(`${size} bytes, limit ${MAX_FILE_BYTES}`);
  return readFile(path, "utf8");
}
