/**
 * Which pairs of ranks share memory, found out at join and not guessed from names of hosts. Every rank makes a shared
 * file with a nonce for each peer and tells its name in the hello; the peer says back, by gRPC, what it read under that
 * name (proof), and is told whether it is right (verdict). A pair shares memory when both ways are proven; else its
 * frames go by gRPC. The name is removed when all have opened it.
 */
import { shareMemory, type SharedLinks } from "@tessera/native/engine";
import type { PairTransport, Sharing } from "./exchange-messages.js";

interface Pair {
  /** What the peer found of this rank's shared file; undefined: not known yet. */
  theirs: boolean | undefined;
  /** What this rank said of the peer's proof; undefined: there is none yet. */
  ours: boolean | undefined;
  why: string;
}

export interface PairsOf {
  epoch: bigint;
  rank: number;
  /** Ranks that exchange collectives are 0 … size − 1. */
  size: number;
  sharing?: Sharing | undefined;
}

const NOTHING = new Uint8Array(0);
const textOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

export class SharedPairs {
  private links: SharedLinks | undefined;
  private readonly pairs = new Map<number, Pair>();
  /** Why this rank has no shared file. */
  private without = "";

  constructor({ epoch, rank, size, sharing }: PairsOf) {
    if (rank >= size) return;
    for (let peer = 0; peer < size; peer++)
      if (peer !== rank) this.pairs.set(peer, { theirs: undefined, ours: undefined, why: "" });
    if (this.pairs.size === 0) return;
    if (sharing === undefined) {
      this.without = `rank ${rank} is told to use gRPC`;
      return;
    }
    try {
      const { dir, threads } = sharing;
      this.links = shareMemory({ dir, epoch, rank, size, threads });
    } catch (error) {
      this.without = textOf(error);
    }
  }

  /** For the hello; empty: there is none. */
  get sharedFile(): string {
    return this.links?.name ?? "";
  }

  /** Whether this rank and `peer` exchange collectives. */
  has(peer: number): boolean {
    return this.pairs.has(peer);
  }

  /** Reads what stands for this rank in a peer's shared file. → the proof; empty when it cannot be read */
  read(peer: number, sharedFile: string): Uint8Array {
    const pair = this.pairs.get(peer);
    if (pair === undefined) return NOTHING;
    if (this.links === undefined || sharedFile === "") {
      pair.why = this.without === "" ? `rank ${peer} has no shared file` : this.without;
      return NOTHING;
    }
    try {
      return this.links.open(peer, sharedFile);
    } catch (error) {
      pair.why = textOf(error);
      return NOTHING;
    }
  }

  /** → the verdict on a peer's proof */
  judge(peer: number, proof: Uint8Array): boolean {
    const pair = this.pairs.get(peer);
    if (pair === undefined) return false;
    pair.ours = this.links?.proves(peer, proof) ?? false;
    if (!pair.ours && pair.why === "")
      pair.why = `rank ${peer} did not read this rank's shared file`;
    return pair.ours;
  }

  /** What the peer says of this rank's proof. */
  hear(peer: number, proven: boolean): void {
    const pair = this.pairs.get(peer);
    if (pair === undefined) return;
    pair.theirs = proven;
    if (!proven && pair.why === "") pair.why = `rank ${peer} has another nonce in its shared file`;
  }

  /** Whether it is decided how frames to `peer` go. */
  knows(peer: number): boolean {
    const pair = this.pairs.get(peer);
    return pair === undefined || (pair.ours !== undefined && pair.theirs !== undefined);
  }

  /** Every pair is decided. */
  get settled(): boolean {
    return [...this.pairs.keys()].every((peer) => this.knows(peer));
  }

  /** By rank; when it is settled. */
  transports(): PairTransport[] {
    return [...this.pairs].map(([rank, { ours, theirs, why }]) =>
      ours === true && theirs === true
        ? { rank, transport: "shm", why: "" }
        : { rank, transport: "grpc", why },
    );
  }

  /** The engine's frames to those that share memory go there from now on; its epoch has begun. */
  start(handle: number, { cores, spinUs }: Pick<Sharing, "cores" | "spinUs">): void {
    const peers = this.transports()
      .filter(({ transport }) => transport === "shm")
      .map(({ rank }) => rank);
    if (peers.length > 0)
      this.links?.start(handle, { peers, cores, ...(spinUs === undefined ? {} : { spinUs }) });
    else this.close();
  }

  close(): void {
    this.links?.close();
    this.links = undefined;
  }
}
