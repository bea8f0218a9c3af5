/** Whether a cluster that a command starts for itself can be. */
import type { PlacementFlags } from "./options.js";

/** Before any process is started. @throws ModelError when model and flags do not fit, naming flag, limit and value. */
export async function checkCluster(
  dir: string,
  workers: number,
  flags: PlacementFlags,
): Promise<undefined> {
  const { openModel, planPlacement } = await import("@tessera/model");
  const model = await openModel(dir);
  planPlacement(model.config, {
    size: workers,
    kvType: flags.kv,
    vision: flags.vision,
    visionWorkers: flags.visionWorkers,
    maxModelLen: flags.maxModelLen,
    cacheBytes: flags.cacheMemory,
    crossCacheBytes: flags.crossCacheMemory,
    embeddingBytes: flags.embeddingMemory,
    maxBatchedTokens: flags.maxBatchedTokens,
    maxSequences: flags.maxSequences,
    draftTokens: flags.speculate,
  });
  await model.tensors();
}

/** Of one process, whose cut is not known yet. @throws ModelError */
export async function checkModel(dir: string): Promise<undefined> {
  const { openModel } = await import("@tessera/model");
  await openModel(dir);
}
