/** Engines of one model in one process, their exchange frames handed over directly. */
import assert from "node:assert/strict";
import { openModel, planPlacement, rankProgram } from "@tessera/model";
import {
  attachExchange,
  deliver,
  FRAME_HEADROOM,
  openEngine,
  type Engine,
  type SamplingSpec,
} from "@tessera/native/engine";

export const GREEDY: SamplingSpec = {
  temperature: 0,
  seed: 0n,
  choice: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  allowedTokenIds: [],
  badWords: [],
  minTokens: 0,
  suppressedTokenIds: [],
};

export interface GroupOptions {
  size: number;
  kvType: "f32" | "bf16";
  /** Ids from here on are never chosen. */
  selectableIds: number;
  maxModelLen?: number;
}

function connect(engines: Engine[]): void {
  engines.forEach((engine, rank) => {
    attachExchange(engine.handle, ({ peers, buffer, ...frame }) => {
      for (const peer of peers) {
        const target = engines[peer];
        assert.ok(target);
        deliver(target.handle, { ...frame, peer: rank, payload: buffer.subarray(FRAME_HEADROOM) });
      }
    });
  });
}

/** A group at epoch 1, every rank ready for encode and step. */
export async function openGroup(dir: string, options: GroupOptions): Promise<Engine[]> {
  const { size, kvType, selectableIds, maxModelLen } = options;
  const model = await openModel(dir);
  const tensors = await model.tensors();
  const engines = await Promise.all(
    Array.from({ length: size }, (_, rank) =>
      openEngine(
        { ...rankProgram(model.config, { rank, size }), tensors, threads: 1 },
        () => undefined,
      ),
    ),
  );
  connect(engines);
  const placement = {
    ...planPlacement(model.config, { size, kvType, maxModelLen }),
    wireType: "f32" as const,
    maxStepsInFlight: 1,
    selectableIds,
    collectiveDeadlineMs: 20_000,
  };
  await Promise.all(engines.map((engine) => engine.beginEpoch(1n, placement)));
  return engines;
}

export async function closeGroup(engines: Engine[]): Promise<void> {
  await Promise.all(engines.map((engine) => engine.close()));
}
