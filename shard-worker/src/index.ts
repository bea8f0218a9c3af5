export { cpuKind, type CpuKind } from "@tessera/native/engine";
export { startWorker, type RunningWorker } from "./worker.js";
export type { WorkerOptions } from "./options.js";
