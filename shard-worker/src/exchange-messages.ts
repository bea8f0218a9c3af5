/** What the worker's main thread and its exchange thread say to each other. */

import type { PeerTls } from "@tessera/proto/channel-security";

/** Buffers arrive as plain bytes. */
export type Bytes<T> = { [K in keyof T]: Uint8Array };

/** How this rank shares memory with others on its machine. */
export interface Sharing {
  /** Where shared files are made and looked for. */
  dir: string;
  /** A pair that shares none fails the join. */
  required: boolean;
  /** Of this rank's kernels. */
  threads: number;
  /** Of this machine. */
  cores: number;
  /** How long a wait for a peer polls; absent: by threads and cores of the ranks that share memory. */
  spinUs?: number | undefined;
}

/** How the collectives of this rank and another one travel. */
export interface PairTransport {
  rank: number;
  transport: "shm" | "grpc";
  /** Why it is not shared memory; of those that share it empty. */
  why: string;
}

export type ToExchange =
  | { kind: "listen"; host: string; tls: Bytes<PeerTls> | undefined }
  | {
      kind: "join";
      epoch: bigint;
      rank: number;
      /** Exchange addresses by rank. */
      peers: string[];
      /** Ranks from here on only encode tiles; they have nothing to say to each other. */
      size: number;
      planHash: string;
      handle: number;
      deadlineMs: number;
      /** How long the thread polls after a frame instead of sleeping, in microseconds; 0: not at all. */
      spinUs: number;
      /** Absent: all frames go by gRPC. */
      sharing?: Sharing | undefined;
    }
  | { kind: "leave" }
  | { kind: "close" };

export type JoinFailure = "PLAN_MISMATCH" | "RANK_LOST" | "CONFIGURATION" | "INTERNAL";

export type FromExchange =
  | { kind: "listening"; port: number }
  | { kind: "joined"; epoch: bigint; pairs: PairTransport[] }
  | { kind: "failed"; epoch: bigint; code: JoinFailure; message: string }
  /** A peer's stream ended while its epoch ran. */
  | { kind: "lost"; epoch: bigint; rank: number; reason: string };
