/** Who forms the next epoch: a list given at start, or the leases of a group on NATS. */
import type { ServeError } from "@tessera/proto";
import type { Group } from "./group.js";

export interface Member {
  /** host:port of Shard. */
  address: string;
  /** The process that must answer there; undefined: any. */
  workerId: string | undefined;
}

/** Members by rank for the next epoch, or why there are not enough yet. */
export type Composition =
  { kind: "whole"; members: Member[]; aboveEpoch: bigint } | { kind: "short"; why: string };

export interface Membership {
  /** Ranks, those that only encode tiles among them. */
  readonly size: number;
  /** Nobody else will ever come: a member that does not fit ends the start. */
  readonly fixed: boolean;
  compose(): Composition;
  /** The group stands; from now on its ranks are judged, and expelled when they are silent. */
  formed(group: Group): void;
  /** The epoch of the group that stood has ended. */
  lost(error: ServeError): void;
  /** A member that `compose` gave did not answer, or (`gone`) another process answers at its address. */
  unreachable(rank: number, member: Member, gone: boolean): void;
  close(): Promise<void>;
}

/** Addresses by rank; whoever listens there is the rank. */
export class StaticMembership implements Membership {
  readonly fixed = true;
  constructor(private readonly addresses: readonly string[]) {}

  get size(): number {
    return this.addresses.length;
  }
  compose(): Composition {
    const members = this.addresses.map((address) => ({ address, workerId: undefined }));
    return { kind: "whole", members, aboveEpoch: 0n };
  }
  formed(): void {}
  lost(): void {}
  unreachable(): void {}
  close(): Promise<void> {
    return Promise.resolve();
  }
}
