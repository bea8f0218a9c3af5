/** Linears against the machine's ceilings: the native benchmark's own figures, in one process. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import type { BenchContext } from "../context.js";
import { parseLine, type Figure } from "../figure.js";
import { root } from "../../harness/paths.js";

const BINARY = root("native/build/bench/kernel_bench");
const DEADLINE_MS = 8 * 60_000;

/** Bytes a second that the machine reads from memory, of a run's figures; undefined when it was not measured. */
export function readCeiling(figures: readonly Figure[]): number | undefined {
  const found = figures.filter(({ name, unit }) => /read.ceiling/i.test(name) && unit === "GB/s");
  return found.length === 0 ? undefined : Math.max(...found.map(({ value }) => value)) * 1e9;
}

/** Operations a second of `threads` threads, of a run's figures; undefined when it was not measured. */
export function fmaCeiling(figures: readonly Figure[], threads: number): number | undefined {
  const found = figures.find(({ name }) => name === `kernels.fma_ceiling.t${threads}`);
  return found === undefined ? undefined : found.value * 1e9;
}

/** @throws Error when the benchmark is not built, fails, or prints something else than figures. */
export async function kernels({ log }: BenchContext): Promise<Figure[]> {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run \`make build\``);
  const child = spawn(BINARY, { stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
  const ended = new Promise<string>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(String(signal ?? code)));
  });
  const figures: Figure[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const figure = parseLine(line);
    log(`${figure.name}: ${figure.value} ${figure.unit}`);
    figures.push(figure);
  }
  const end = await ended;
  clearTimeout(timer);
  if (end !== "0") throw new Error(`${BINARY} ended with ${end}`);
  return figures;
}
