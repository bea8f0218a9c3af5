/** Coordinator and workers of the bundled NVLM-D in this process, for what child processes cannot be asked. */
import {
  startCoordinator,
  type CoordinatorOptions,
  type RunningCoordinator,
} from "@tessera/coordinator";
import { startWorker, type RunningWorker, type WorkerOptions } from "@tessera/shard-worker";
import { FLAGS } from "./cluster.js";
import { root } from "./paths.js";

export interface InProcess {
  workers: RunningWorker[];
  coordinator: RunningCoordinator;
  close(): Promise<void>;
}

/** Ready to serve. */
export async function serveInProcess(
  size: number,
  options: Partial<CoordinatorOptions>,
  worker: Partial<WorkerOptions> = {},
): Promise<InProcess> {
  const listen = "127.0.0.1:0";
  const common = { modelDir: root("models/nvlm-d-tiny"), listen, logLevel: "fatal" };
  const workers = await Promise.all(
    Array.from({ length: size }, () =>
      startWorker({ ...common, healthListen: listen, threads: 1, ...worker }),
    ),
  );
  const closeWorkers = () => Promise.all(workers.map((worker) => worker.close()));
  const coordinator = await startCoordinator({
    ...common,
    workers: workers.map(({ address }) => address),
    kvType: "f32",
    wireType: "f32",
    chatTemplate: "nvlm",
    maxRequests: 4,
    stepDeadlineMs: FLAGS.stepDeadlineMs,
    reflection: false,
    ...options,
  }).catch(async (error: unknown) => {
    await closeWorkers();
    throw error;
  });
  await coordinator.ready;
  const close = async () => {
    await coordinator.close();
    await closeWorkers();
  };
  return { workers, coordinator, close };
}
