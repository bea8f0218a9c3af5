export { cpuKind, type CpuKind } from "@tessera/native/engine";
export { startWorker, type RunningWorker, type WorkerOptions } from "./worker.js";
