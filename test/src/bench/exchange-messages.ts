/** What the exchange benchmark and its two processes say to each other, by IPC. */

export type ToPeer =
  | { kind: "start" }
  /** An engine whose step is `trips` round trips of `bytes`; addresses by rank. */
  | {
      kind: "join";
      rank: number;
      bytes: number;
      spinUs: number;
      exchange: string[];
      /** Through shared memory, which the two must have, or by gRPC. */
      transport: "shm" | "grpc";
      /** Round trips of a step. */
      trips: number;
      tcpPort: number;
    }
  | { kind: "exchange"; count: number }
  | { kind: "tcp"; count: number };

export type FromPeer =
  | { kind: "started"; exchangePort: number; tcpPort: number }
  | { kind: "joined" }
  /** Microseconds of a round trip, step by step. */
  | { kind: "times"; us: number[] };
