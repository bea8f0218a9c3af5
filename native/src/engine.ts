/**
 * The engine's door: a few coarse calls. Heavy work runs off the JavaScript thread and settles a promise.
 * Errors are `NativeError`s with a code and the values that were wrong.
 */
import { loadAddon } from "./addon.js";

export type CpuKind = "scalar" | "avx2" | "avx512";
export type NativeErrorCode =
  | "INVALID_ARGUMENT" // a plan, a program or a tile that cannot be
  | "BAD_MODEL" // a weight file that is damaged, too short, not zero where it must be, or not finite
  | "OUT_OF_MEMORY"
  | "PEER_TIMEOUT" // `rank` did not enter a collective or send an embedding in time
  | "PEER_LOST" // `rank`'s stream ended
  | "EPOCH_ENDED"
  | "NO_SHARED_MEMORY" // a shared file that cannot be made or opened, or is not what it should be
  | "CLOSED"
  | "INTERNAL";

/** What a rejected promise or a throwing call gives; made in C++ with these properties set on an Error. */
export interface NativeError extends Error {
  code: NativeErrorCode;
  /** The peer that is to blame, for PEER_TIMEOUT and PEER_LOST. */
  rank?: number;
}

/** Where a stored tensor lies. Offsets are absolute in the file. */
export interface TensorSource {
  path: string;
  offset: number;
  bytes: number;
  dtype: "BF16" | "F32" | "F16";
  rows: number;
  cols: number;
}

export interface EngineSpec {
  /** `encode` and `step` of model's RankProgram, as they are; checked in native code. */
  encode: object;
  step: object;
  /** Of cross-attention; absent in models without. Its weights are the step's. */
  stream?: object;
  crossCache?: { layers: number; kvHeads: number; headDim: number };
  tensors: Record<string, TensorSource>;
  rank: number;
  size: number;
  threads: number;
  cache: { layers: number; kvHeads: number; headDim: number };
  embedding: { rows: number; width: number };
  tile: { size: number };
  vocabulary: number;
}

/** Memory of one placement; set anew at each join, weights stay. */
export interface PlacementSpec {
  kvType: "f32" | "bf16" | "int8";
  wireType: "f32" | "bf16";
  blockCount: number;
  maxBatchedTokens: number;
  maxSequences: number;
  maxWantedRows: number;
  maxTiles: number;
  maxEmbeddings: number;
  maxModelLen: number;
  maxStepsInFlight: number;
  selectableIds: number;
  collectiveDeadlineMs: number;
  /** Rows of images' streams one step may open, and blocks of the cross cache; absent without cross-attention. */
  maxStreamRows?: number;
  crossBlockCount?: number;
  /** Ranks beyond the group's that only encode tiles; absent: none. */
  encoders?: number;
  /** How long a wait for a peer polls before it sleeps; absent: not at all. */
  spinUs?: number;
}

export interface EngineInfo {
  cpu: CpuKind;
  threads: number;
  weightBytes: number;
  cacheBytes: number;
  workspaceBytes: number;
}

export interface EncodePlan {
  epoch: bigint;
  /** Rises. */
  encodeId: bigint;
  /** Absent: the placement's collectiveDeadlineMs. */
  deadlineMs?: number;
  /** Pixels are u8 [s, s, 3], or normalised f32 [3, s, s]. */
  tiles: { embeddingId: bigint; pixels: Uint8Array | Float32Array }[];
  /** Labels of ops whose outputs are returned; for tests. */
  capture?: string[];
  /** Each op is timed; absent: none, which costs nothing. */
  profile?: boolean;
}

export interface SamplingSpec {
  temperature: number;
  seed: bigint;
  choice: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias: { tokenId: number; bias: number }[];
  allowedTokenIds: number[];
  badWords: number[][];
  minTokens: number;
  suppressedTokenIds: number[];
}

/** The likeliest token, as the model has it. */
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

/** The same fields as tessera.shard.v1.StepPlan. */
export interface StepPlanSpec {
  epoch: bigint;
  stepId: bigint;
  releasedStep: bigint;
  deadlineMs: number;
  opened: {
    sequenceId: bigint;
    promptLength: number;
    tokenIds: number[];
    sampling: SamplingSpec;
  }[];
  closedSequenceIds: bigint[];
  releasedEmbeddingIds: bigint[];
  slices: SliceSpec[];
  /** Images' streams whose keys and values are computed before the slices. */
  openedStreams?: StreamOpenSpec[];
  closedStreamIds?: bigint[];
  /** Blocks of the cache that become equal to others before the slices, in order. */
  copiedBlocks?: { from: number; to: number }[];
  /** Of wanted rows. */
  masks?: MaskSpec[];
  capture?: string[];
  /** Each op is timed; absent: none, which costs nothing. */
  profile?: boolean;
}

export interface StreamOpenSpec {
  streamId: bigint;
  /** −1 where an image row is. */
  tokenIds: number[];
  imageRows: SliceSpec["imageRows"];
  /** Of the cross cache. */
  blockIds: number[];
}

export interface SliceSpec {
  sequenceId: bigint;
  startPosition: number;
  tokenIds: number[];
  firstBlock: number;
  blockIds: number[];
  imageRows: {
    row: number;
    embeddingId: bigint;
    firstRow: number;
    count: number;
    encoderRank: number;
  }[];
  wanted: WantedRowSpec[];
  /** Rows and the ranges of streams that they see, rising; others see nothing. */
  seen?: {
    row: number;
    count: number;
    ranges: { streamId: bigint; first: number; end: number }[];
  }[];
}

/** Allowed ids: as runs, or bit id mod 8 of byte ⌊id / 8⌋. */
export interface MaskSpec {
  runs: { start: number; count: number }[];
  bits: Uint8Array;
}

export interface WantedRowSpec {
  row: number;
  candidates: number;
  topLogprobs: number;
  logprob: boolean;
  scoredTokenIds: number[];
  /** 1 + index in the plan's masks; 0: every id is allowed. */
  mask?: number;
}

export interface CandidateResult {
  tokenId: number;
  raw: number;
  scaled: number;
  noise: number;
}

export interface ScoredResult {
  tokenId: number;
  raw: number;
}

export interface LaneResult {
  lane: number;
  nonFinite: boolean;
  best: CandidateResult | null;
  candidates: CandidateResult[];
  top: ScoredResult[];
  scored: ScoredResult[];
  raw: { max: number; sum: number } | null;
  scaled: { max: number; sum: number } | null;
}

export interface RowResult {
  sequenceId: bigint;
  row: number;
  lanes: LaneResult[];
}

/** One op of a profiled pass, by its place in the program. */
export interface OpTime {
  /** Of the streams' program; else of the pass's own. */
  stream: boolean;
  segment: number;
  /** Index in the segment; the number of its ops: the collective at its end. */
  op: number;
  /** Of what it reads; 0 when that is no buffer. */
  rows: number;
  /** Since the pass began. */
  startNs: number;
  ns: number;
  /** Of `ns`: for peers. */
  waitNs: number;
  /** At least: weights and cache read once, rows read and written. */
  bytes: number;
  /** Of products. */
  flops: number;
}

export interface StepOutcome {
  rows: RowResult[];
  /** The step without the waiting. */
  computeNs: bigint;
  /** For peers: in collectives, and for embeddings. */
  waitNs: bigint;
  /** In collectives, waiting included. */
  collectiveNs: bigint;
  exchangeBytes: bigint;
  /** By label, f32 [rows × width]; only what `capture` asked for. */
  captured: Record<string, Float32Array>;
  /** In the order of the ops; only where the plan asks. */
  opTimes?: OpTime[];
}

export interface EncodeOutcome {
  /** The whole encode; of a cut encoder with its waiting for peers. */
  computeNs: bigint;
  exchangeBytes: bigint;
  captured: Record<string, Float32Array>;
  opTimes?: OpTime[];
}

/** One rank's engine. Steps and encodes run one after another in the order of the calls. */
export interface Engine {
  /** Names this engine in the exchange thread; valid until close. */
  readonly handle: number;
  info(): EngineInfo;
  /** Plans memory and takes an epoch: sequences, embeddings and undelivered frames of older ones are dropped. */
  beginEpoch(epoch: bigint, placement: PlacementSpec): Promise<EngineInfo>;
  /** Ends the epoch: whatever waits in a collective is rejected with EPOCH_ENDED, or PEER_LOST when a rank is named. */
  endEpoch(epoch: bigint, lostRank?: number): void;
  encode(plan: EncodePlan): Promise<EncodeOutcome>;
  step(plan: StepPlanSpec): Promise<StepOutcome>;
  /** Best `count` candidates a lane of a row of a step whose logits are kept. */
  moreCandidates(query: {
    stepId: bigint;
    sequenceId: bigint;
    row: number;
    count: number;
  }): Promise<RowResult>;
  release(ids: { sequenceIds: bigint[]; embeddingIds: bigint[] }): void;
  stats(): { sequences: number; embeddings: number; streams: number; lastStepId: bigint };
  close(): Promise<void>;
}

export function openEngine(
  spec: EngineSpec,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<Engine> {
  return loadAddon().openEngine(spec, onProgress);
}

/** The kernels this machine runs; `TESSERA_CPU` forces one. Throws when it is unknown or not to be had here. */
export function cpuKind(): CpuKind {
  return loadAddon().cpuKind();
}

export interface Ceilings {
  readBytesPerSecond: number;
  /** Of fused multiply-adds, two each. */
  flopsPerSecond: number;
}

/** What memory and arithmetic units give on so many threads: best of several loops, a second or two. */
export function measureCeilings(options: { threads: number }): Promise<Ceilings> {
  return loadAddon().measureCeilings(options);
}

/** Room before the payload of every outgoing frame, for its protobuf header. */
export const FRAME_HEADROOM = 96;

/** A frame native code wants sent. `buffer` is [FRAME_HEADROOM bytes | payload ≤ 1 MiB]; the receiver owns it. */
export interface OutFrame {
  peers: number[];
  /** Of a step, of an encode's own collectives, or a tile's embedding. */
  kind: "collective" | "encodeCollective" | "embedding";
  epoch: bigint;
  /** Step id, or encode id. */
  sequence: bigint;
  /** Collective's call, or embedding id. */
  item: bigint;
  offset: number;
  total: number;
  buffer: Uint8Array;
}

export type InFrame = Omit<OutFrame, "peers" | "buffer"> & { peer: number; payload: Uint8Array };

/** Called in the exchange thread: `send` runs there for every outgoing frame. Returns the detaching. */
export function attachExchange(handle: number, send: (frame: OutFrame) => void): () => void {
  return loadAddon().attachExchange(handle, send);
}

/** Called in the exchange thread: hands a received frame to the engine, which copies the payload. */
export function deliver(handle: number, frame: InFrame): void {
  loadAddon().deliver(handle, frame);
}

/** One rank's shared file, and those of peers on the same machine, for one epoch. Not to be used after close. */
export interface SharedLinks {
  /** Of this rank's shared file; there until `start` or `close`. */
  readonly name: string;
  /** Maps a peer's shared file. → what it holds for this rank, to be said back. @throws NativeError NO_SHARED_MEMORY */
  open(peer: number, name: string): Uint8Array;
  /** Whether it is what this rank's shared file holds for the peer. */
  proves(peer: number, nonce: Uint8Array): boolean;
  /**
   * From now on collectives between the engine, which has begun the epoch, and `peers`, whose files are open, go
   * through memory. A wait polls for `spinUs`; absent: as long as pays where all these ranks' threads have cores.
   * → what was chosen.
   */
  start(handle: number, of: { peers: number[]; cores: number; spinUs?: number }): number;
  /** The engine goes on with what was started until its epoch ends. */
  close(): void;
}

/** Makes this rank's shared file, a file in `dir`. @throws NativeError NO_SHARED_MEMORY */
export function shareMemory(of: {
  dir: string;
  epoch: bigint;
  rank: number;
  size: number;
  threads: number;
}): SharedLinks {
  return loadAddon().shareMemory(of);
}
