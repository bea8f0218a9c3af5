/** The routes over what lies on disk, and the work behind them. */
import type { Logger } from "pino";
import type { Front } from "../stream/front.js";
import { answerLine } from "./batches/answer-line.js";
import { requestIdOf } from "./batches/batch-run.js";
import { Batches } from "./batches/batches.js";
import { Slots } from "./batches/slots.js";
import { batchRoutes } from "./routes/batches.js";
import { fileRoutes } from "./routes/files.js";
import type { Routes } from "./routes/index.js";
import { DataFolder } from "./storage/data-folder.js";
import { FileStore, type FileLimits } from "./storage/file-store.js";

/** Lines of all batches computed at once, where live requests have at least as many places. */
export const BATCH_CONCURRENCY = 16;

export interface KeptOptions {
  /** Absent: nothing is kept, and the routes say so. */
  dataDir: string | undefined;
  maxRequests: number;
  maxLineBytes: number;
  fileLimits?: Partial<FileLimits> | undefined;
  log: Logger;
}

export interface Kept {
  routes: readonly Routes[];
  /** Batches are left for the next start. */
  stop(): Promise<void>;
  /** Nothing is written any more: another server may have the folder. */
  close(): Promise<void>;
}

/** @throws ServeError CONFIGURATION */
export async function openKept(front: Front, options: KeptOptions): Promise<Kept> {
  const { dataDir } = options;
  const nothing = () => Promise.resolve();
  if (dataDir === undefined) {
    const routes = [fileRoutes(undefined), batchRoutes(undefined)];
    return { routes, stop: nothing, close: nothing };
  }
  const data = await DataFolder.open(dataDir);
  try {
    return await openFolder(front, data, options);
  } catch (error) {
    await data.close();
    throw error;
  }
}

async function openFolder(front: Front, data: DataFolder, options: KeptOptions): Promise<Kept> {
  const { maxRequests, maxLineBytes, log } = options;
  const files = await FileStore.open(data, options.fileLimits);
  const concurrency = Math.min(BATCH_CONCURRENCY, Math.max(1, Math.floor(maxRequests / 2)));
  const slots = new Slots(concurrency);
  const batches = await Batches.open(data, {
    files,
    concurrency,
    maxLineBytes,
    answer(record, entry, signal) {
      const { tenant, policy, endpoint } = record;
      const caller = { tenant, policy, admin: false };
      const requestId = requestIdOf(record, entry);
      return answerLine(front, { endpoint, body: entry.body, requestId, caller, signal }, slots);
    },
    failed: ({ id: batch }, error) => log.error({ batch, err: error }, "batch failed"),
  });
  return {
    routes: [fileRoutes(files), batchRoutes(batches)],
    stop: () => batches.close(),
    close: () => data.close(),
  };
}
