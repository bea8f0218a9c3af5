/** The machine a run was made on. */
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { cpuKind } from "@tessera/native/engine";

export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  /** Of the kernels: scalar, avx2, avx512. */
  kernels: string;
  node: string;
  system: string;
  /** Of the last minute before the run: above 0.3 someone else was at work and the figures are noise. */
  loadBefore: number;
  /** ISO day. */
  date: string;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernels: cpuKind(),
    node: process.version,
    system: process.platform,
    loadBefore: Number((loadavg()[0] ?? 0).toFixed(2)),
    date: new Date().toISOString().slice(0, 10),
  };
}
