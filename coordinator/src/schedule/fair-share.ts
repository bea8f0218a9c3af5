/**
 * Who of the tenants that wait comes next: deficit round robin over tokens of prompts and answers. Pure.
 *
 * A tenant's credit rises by QUANTUM × weight a round and falls by a request's prompt when it is begun and by each
 * token made; a tenant is next when its credit covers what its first request costs. Who has nothing waiting and nothing
 * running starts anew.
 */
import assert from "node:assert/strict";

/** Tokens of credit a round and unit of weight. */
export const QUANTUM = 512;

export interface Claim {
  tenant: string;
  weight: number;
  /** Lower comes first, whatever the tenants have had. */
  priority: number;
  /** Tokens of the prompt. */
  cost: number;
}

interface Credits {
  credit: Map<string, number>;
  /** Tenants in the order of their turns; the first is at turn. */
  ring: string[];
}

export class FairShare {
  private state: Credits = { credit: new Map(), ring: [] };

  /** Tokens were made for a tenant. */
  charge(tenant: string, tokens: number): void {
    const credit = this.state.credit.get(tenant);
    if (credit !== undefined) this.state.credit.set(tenant, credit - tokens);
  }

  /** Tenants that neither wait nor run any more are forgotten. */
  keep(tenants: ReadonlySet<string>): void {
    for (const tenant of this.state.credit.keys())
      if (!tenants.has(tenant)) this.state.credit.delete(tenant);
    this.state.ring = this.state.ring.filter((tenant) => tenants.has(tenant));
  }

  /** In which order these are to be served, those of one tenant and priority as they are given. Changes no credit. */
  order<T extends Claim>(claims: readonly T[]): T[] {
    for (const { tenant } of claims) this.meet(tenant);
    const { credit, ring } = this.state;
    const trial = { credit: new Map(credit), ring: [...ring] };
    const levels = [...new Set(claims.map(({ priority }) => priority))].sort((a, b) => a - b);
    return levels.flatMap((level) =>
      serve(
        claims.filter(({ priority }) => priority === level),
        trial,
      ),
    );
  }

  /** One of `waiting` is begun: the rounds up to its turn are over. */
  served(claim: Claim, waiting: readonly Claim[]): void {
    const queues = queuesOf(waiting.filter(({ priority }) => priority === claim.priority));
    advance(queues, this.state, claim.tenant);
    this.charge(claim.tenant, claim.cost);
  }

  private meet(tenant: string): void {
    if (this.state.credit.has(tenant)) return;
    this.state.credit.set(tenant, 0);
    this.state.ring.push(tenant);
  }
}

type Queues<T extends Claim> = Map<string, T[]>;

function queuesOf<T extends Claim>(claims: readonly T[]): Queues<T> {
  const queues: Queues<T> = new Map();
  for (const claim of claims) {
    const queue = queues.get(claim.tenant);
    if (queue === undefined) queues.set(claim.tenant, [claim]);
    else queue.push(claim);
  }
  return queues;
}

/** All of them, one after the other. */
function serve<T extends Claim>(claims: readonly T[], state: Credits): T[] {
  const queues = queuesOf(claims);
  const served: T[] = [];
  while (queues.size > 0) {
    const tenant = advance(queues, state);
    const queue = queues.get(tenant);
    const claim = queue?.shift();
    assert(claim !== undefined, `tenant ${tenant} has no claim`);
    if (queue?.length === 0) queues.delete(tenant);
    state.credit.set(tenant, (state.credit.get(tenant) ?? 0) - claim.cost);
    served.push(claim);
  }
  return served;
}

/**
 * Moves the turn on to a tenant whose credit covers its first claim, or to `wanted`. Rounds that lead nowhere are leapt
 * over.
 */
function advance<T extends Claim>(queues: Queues<T>, state: Credits, wanted?: string): string {
  const { credit } = state;
  const short = (tenant: string) => {
    const first = queues.get(tenant)?.[0];
    if (first === undefined) return undefined;
    const rise = QUANTUM * first.weight;
    return Math.max(0, Math.ceil((first.cost - (credit.get(tenant) ?? 0)) / rise));
  };
  const [current = "", ...others] = state.ring;
  // Who has used up its credit has had its turn.
  const ring = short(current) === 0 ? state.ring : [...others, current];
  const rounds = ring.map(short);
  const least = Math.min(...rounds.filter((count) => count !== undefined));
  assert(Number.isFinite(least), "no tenant of the ring has a claim");
  const at =
    wanted === undefined ? rounds.findIndex((count) => count === least) : ring.indexOf(wanted);
  const count = rounds[at] ?? 0;
  ring.forEach((tenant, i) => {
    const first = queues.get(tenant)?.[0];
    // Those behind the one at turn have not had the last round's credit yet.
    const gained = i <= at ? count : count - 1;
    if (first !== undefined && gained > 0)
      credit.set(tenant, (credit.get(tenant) ?? 0) + gained * QUANTUM * first.weight);
  });
  state.ring = [...ring.slice(at), ...ring.slice(0, at)];
  return state.ring[0] ?? "";
}
