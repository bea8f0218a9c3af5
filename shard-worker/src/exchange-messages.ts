/** What the worker's main thread and its exchange thread say to each other. */

import type { PeerTls } from "@tessera/proto/channel-security";

/** Buffers arrive as plain bytes. */
export type Bytes<T> = { [K in keyof T]: Uint8Array };

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
    }
  | { kind: "leave" }
  | { kind: "close" };

export type JoinFailure = "PLAN_MISMATCH" | "RANK_LOST" | "INTERNAL";

export type FromExchange =
  | { kind: "listening"; port: number }
  | { kind: "joined"; epoch: bigint }
  | { kind: "failed"; epoch: bigint; code: JoinFailure; message: string }
  /** A peer's stream ended while its epoch ran. */
  | { kind: "lost"; epoch: bigint; rank: number; reason: string };
