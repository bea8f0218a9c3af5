/** What the exchange benchmark and its two processes say to each other, by IPC. */

export type ToPeer =
  | { kind: "start" }
  /** An engine whose step is one round trip of `bytes`; addresses by rank. */
  | {
      kind: "join";
      rank: number;
      bytes: number;
      spinUs: number;
      exchange: string[];
      /** Through shared memory, which the two must have, or by gRPC. */
      transport: "shm" | "grpc";
      tcpPort: number;
    }
  | { kind: "exchange"; count: number }
  | { kind: "tcp"; count: number };

export type FromPeer =
  | { kind: "started"; exchangePort: number; tcpPort: number }
  | { kind: "joined" }
  /** Microseconds of each round trip. */
  | { kind: "times"; us: number[] };
