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
    const levels = groupBy(claims, ({ priority }) => priority);
    return [...levels]
      .sort(([a], [b]) => a - b)
      .flatMap(([, level]) =>
        serve(
          groupBy(level, ({ tenant }) => tenant),
          trial,
        ),
      );
  }

  /** One of `waiting` is begun: the rounds up to its turn are over. */
  served(claim: Claim, waiting: readonly Claim[]): void {
    const level = waiting.filter(({ priority }) => priority === claim.priority);
    pass(
      groupBy(level, ({ tenant }) => tenant),
      this.state,
      claim.tenant,
    );
    this.charge(claim.tenant, claim.cost);
  }

  private meet(tenant: string): void {
    if (this.state.credit.has(tenant)) return;
    this.state.credit.set(tenant, 0);
    this.state.ring.push(tenant);
  }
}

type Queues<T extends Claim> = Map<string, T[]>;

function groupBy<T extends Claim, K>(claims: readonly T[], keyOf: (claim: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const claim of claims) {
    const key = keyOf(claim);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [claim]);
    else group.push(claim);
  }
  return groups;
}

/** Rounds until `credit` covers what a claim costs. */
function roundsFor({ cost, weight }: Claim, credit: number): number {
  return Math.max(0, Math.ceil((cost - credit) / (QUANTUM * weight)));
}

/** Tenants by turn. Who has used up its credit has had its turn and is last; else it goes on, in round 0. */
function turnsOf<T extends Claim>(queues: Queues<T>, { credit, ring }: Credits) {
  const [current = "", ...others] = ring;
  const first = queues.get(current)?.[0];
  const goesOn = first !== undefined && roundsFor(first, credit.get(current) ?? 0) === 0;
  return { turns: goesOn ? ring : [...others, current], goesOn };
}

/**
 * All of them, one after the other. Which round a claim is served in depends on its own tenant alone; within a round
 * tenants come by turn.
 */
function serve<T extends Claim>(queues: Queues<T>, state: Credits): T[] {
  const { turns, goesOn } = turnsOf(queues, state);
  const served: { claim: T; round: number; turn: number }[] = [];
  turns.forEach((tenant, turn) => {
    let credit = state.credit.get(tenant) ?? 0;
    let round = 0;
    for (const claim of queues.get(tenant) ?? []) {
      const rounds = roundsFor(claim, credit);
      // A turn that has not come yet is in round 1 at the earliest.
      const more = round === 0 && !(goesOn && turn === 0) ? Math.max(1, rounds) : rounds;
      round += more;
      credit += more * QUANTUM * claim.weight - claim.cost;
      // Who goes on and has used up its credit comes after all others.
      served.push({ claim, round, turn: goesOn && turn === 0 && round > 0 ? turns.length : turn });
    }
    state.credit.set(tenant, credit);
  });
  served.sort((a, b) => a.round - b.round || a.turn - b.turn);
  const last = served.at(-1)?.turn ?? 0;
  state.ring = [...turns.slice(last), ...turns.slice(0, last)];
  return served.map(({ claim }) => claim);
}

/** The rounds up to the one in which `tenant` is served first; the turn is its then. */
function pass<T extends Claim>(queues: Queues<T>, state: Credits, tenant: string): void {
  const { turns, goesOn } = turnsOf(queues, state);
  const { credit } = state;
  const at = turns.indexOf(tenant);
  const first = queues.get(tenant)?.[0];
  assert(first !== undefined && at >= 0, `tenant ${tenant} has no claim`);
  if (goesOn && at === 0) return;
  const rounds = Math.max(1, roundsFor(first, credit.get(tenant) ?? 0));
  turns.forEach((other, turn) => {
    const claim = queues.get(other)?.[0];
    const visits = turn <= at && !(goesOn && turn === 0) ? rounds : rounds - 1;
    if (claim !== undefined && visits > 0)
      credit.set(other, (credit.get(other) ?? 0) + visits * QUANTUM * claim.weight);
  });
  state.ring = [...turns.slice(at), ...turns.slice(0, at)];
}
