/** A whole model on one rank in this process, op by op: tiles, prompts, then decode steps. */
import {
  cpuKind,
  measureCeilings,
  openEngine,
  type Ceilings,
  type Engine,
  type OpTime,
} from "@tessera/native/engine";
import {
  openModel,
  planPlacement,
  rankProgram,
  type KvType,
  type RankProgram,
} from "@tessera/model";
import { fromNative } from "../rank.js";
import { opNames, type OpName } from "./op-names.js";
import {
  blocksPerSequence,
  decodePlans,
  encodePlans,
  prefillPlans,
  warmUpPlan,
  type PassSizes,
} from "./passes.js";

export type { Ceilings } from "@tessera/native/engine";

export interface ProfileOptions {
  modelDir: string;
  threads: number;
  kvType: KvType;
  /** Sequences that run together. */
  batch: number;
  /** Tokens of each prompt. */
  promptLen: number;
  /** Tokens made of each sequence. */
  decodeLen: number;
  /** Encoded before; 0: none. */
  tiles: number;
}

export interface ProfiledOp extends Omit<OpTime, "stream" | "segment" | "op">, OpName {}

export interface ProfiledStep {
  /** Since the profile began. */
  startNs: number;
  ns: number;
  /** Of tokens, or tiles. */
  items: number;
  /** `startNs` of each is since its step began. */
  ops: ProfiledOp[];
}

export interface ProfiledPhase {
  name: "encode" | "prefill" | "decode";
  steps: ProfiledStep[];
}

export interface Profile {
  model: string;
  cpu: string;
  threads: number;
  ceilings: Ceilings;
  phases: ProfiledPhase[];
}

/** Names the ops of one program and of the streams' before it. */
class Namer {
  private readonly own: OpName[][];
  private readonly stream: OpName[][];
  constructor(program: RankProgram, of: "encode" | "step") {
    this.own = opNames(program[of]);
    this.stream = opNames(program.stream);
  }
  name({ stream, segment, op, ...rest }: OpTime): ProfiledOp {
    const name = (stream ? this.stream : this.own)[segment]?.[op];
    return { ...rest, name: name?.name ?? "", layer: name?.layer };
  }
}

const NS_PER_MS = 1e6;
const EPOCH = 1n;

/** Runs passes one after another; times are since the first of all phases began. */
class Runner {
  private readonly began = performance.now();
  constructor(
    private readonly engine: Engine,
    private readonly program: RankProgram,
  ) {}

  private sinceNs(): number {
    return Math.round((performance.now() - this.began) * NS_PER_MS);
  }

  async encode(tiles: number, most: number): Promise<ProfiledPhase> {
    const namer = new Namer(this.program, "encode");
    const steps: ProfiledStep[] = [];
    const tileSize = this.program.tile.size;
    for (const plan of encodePlans(tiles, { epoch: EPOCH, most, tileSize })) {
      const startNs = this.sinceNs();
      const { computeNs, opTimes = [] } = await this.engine.encode(plan);
      const ops = opTimes.map((time) => namer.name(time));
      if (plan.profile === true)
        steps.push({ startNs, ns: Number(computeNs), items: plan.tiles.length, ops });
      const embeddingIds = plan.tiles.map(({ embeddingId }) => embeddingId);
      this.engine.release({ sequenceIds: [], embeddingIds });
    }
    return { name: "encode", steps };
  }

  async steps(
    name: "prefill" | "decode",
    plans: Iterable<Parameters<Engine["step"]>[0]>,
  ): Promise<ProfiledPhase> {
    const namer = new Namer(this.program, "step");
    const steps: ProfiledStep[] = [];
    for (const plan of plans) {
      const startNs = this.sinceNs();
      const { computeNs, waitNs, opTimes = [] } = await this.engine.step(plan);
      const ops = opTimes.map((time) => namer.name(time));
      const items = plan.slices.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
      steps.push({ startNs, ns: Number(computeNs + waitNs), items, ops });
    }
    return { name, steps };
  }
}

async function runPhases(
  engine: Engine,
  program: RankProgram,
  { sizes, tiles, maxTiles }: { sizes: PassSizes; tiles: number; maxTiles: number },
): Promise<ProfiledPhase[]> {
  const runner = new Runner(engine, program);
  const phases: ProfiledPhase[] = [];
  if (tiles > 0) phases.push(await runner.encode(tiles, maxTiles));
  await engine.step(warmUpPlan(sizes));
  const prefill = await runner.steps("prefill", prefillPlans(sizes));
  phases.push(prefill);
  if (sizes.decodeLen > 0)
    phases.push(await runner.steps("decode", decodePlans(sizes, prefill.steps.length + 2)));
  return phases;
}

/** @throws ModelError, ServeError naming what does not fit the model */
export async function profileModel(
  options: ProfileOptions,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<Profile> {
  const { batch, promptLen, decodeLen, tiles, threads, kvType } = options;
  const model = await openModel(options.modelDir);
  const placement = planPlacement(model.config, {
    size: 1,
    kvType,
    maxModelLen: promptLen + decodeLen,
    maxSequences: batch,
    vision: "replicate",
  });
  const program = rankProgram(model.config, { rank: 0, size: 1, vision: "replicate" });
  const { maxBatchedTokens, maxTiles } = placement;
  const { vocabulary } = program;
  const sizes = { epoch: EPOCH, batch, promptLen, decodeLen, maxBatchedTokens, vocabulary };
  const ceilings = await measureCeilings({ threads });
  const tensors = await model.tensors();
  try {
    const engine = await openEngine({ ...program, tensors, threads }, onProgress);
    try {
      const spec = {
        ...placement,
        blockCount: batch * blocksPerSequence(sizes),
        wireType: "f32" as const,
        maxStepsInFlight: 1,
        selectableIds: vocabulary,
        collectiveDeadlineMs: 60_000,
      };
      await engine.beginEpoch(EPOCH, spec);
      const phases = await runPhases(engine, program, { sizes, tiles, maxTiles });
      return { model: options.modelDir, cpu: cpuKind(), threads, ceilings, phases };
    } finally {
      await engine.close();
    }
  } catch (error) {
    throw fromNative(error);
  }
}
