export { startWorker, type RunningWorker } from "./worker.js";
export type { WorkerOptions } from "./options.js";
