/**
 * Loaded before a process's own code (`--import`): on SIGUSR2 it collects garbage and writes what is left to the folder
 * that the query of its own URL names.
 */
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { isMainThread } from "node:worker_threads";

/** A second pass frees what finalizers of the first have let go. */
const PASSES = 3;

function watch(folder: string): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  process.on("SIGUSR2", () => {
    let passes = 0;
    const pass = () => {
      collect();
      if (++passes < PASSES) return void setImmediate(pass);
      const path = join(folder, String(process.pid));
      writeFileSync(`${path}.new`, JSON.stringify(process.memoryUsage()));
      renameSync(`${path}.new`, path);
    };
    pass();
  });
}

const folder = new URL(import.meta.url).searchParams.get("folder");
if (isMainThread && folder !== null) watch(folder);
