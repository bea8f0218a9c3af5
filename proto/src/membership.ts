/**
 * Who may hold a rank, and who is silent. Both sides of NATS decide by these; time comes in as an argument, in
 * milliseconds of the caller's own monotonic clock.
 */

/** Heartbeat intervals without a word, after which a process is silent. */
export const SILENT_INTERVALS = 6;
/** Own intervals without the echo of an own heartbeat, after which nothing heard before counts as silence. */
const DEAF_INTERVALS = 3;
/** After such a gap the others have this long, beyond the limit, to come back as well. */
export const RETURN_GRACE_MS = 1000;
/** Processes remembered; more are not listened to. */
export const MAX_HEARD = 1024;
export const HEARTBEAT_INTERVAL_MS = { default: 500, least: 50, most: 60_000 } as const;

/** What is wrong with a group's name, which is part of subjects and of the bucket's name; undefined when nothing. */
export function groupNameProblem(name: string): string | undefined {
  if (/^[A-Za-z0-9_-]{1,32}$/.test(name)) return undefined;
  return `group: ${JSON.stringify(name)}, must be 1 to 32 of A-Z a-z 0-9 _ -`;
}

export function heartbeatIntervalProblem(intervalMs: number): string | undefined {
  const { least, most } = HEARTBEAT_INTERVAL_MS;
  if (Number.isSafeInteger(intervalMs) && intervalMs >= least && intervalMs <= most)
    return undefined;
  return `heartbeat-ms: ${intervalMs}, must be a whole number from ${least} to ${most}`;
}

/** An interval as another process said it, within the bounds. */
function bounded(intervalMs: number): number {
  const { least, most } = HEARTBEAT_INTERVAL_MS;
  return Math.min(most, Math.max(least, intervalMs));
}

/** alive: heard and not silent. unknown: never heard, and not listened for long enough to call it silent. */
export type Verdict = "alive" | "silent" | "unknown";

interface Heard {
  atMs: number;
  intervalMs: number;
}

/**
 * What one process hears. It judges at the moment of its own last heartbeat that came back: when NATS is lost or slow,
 * or this process stood still, nothing comes back and nobody is judged; afterwards everybody has the whole time again,
 * and some more.
 */
export class HeartbeatBook {
  private readonly heardOf = new Map<string, Heard>();
  private echoMs: number | undefined;
  private listeningSinceMs = 0;

  constructor(private readonly ownIntervalMs: number) {}

  /** False when the process is not remembered, because too many are. */
  heard(id: string, said: { intervalMs: number; nowMs: number }): boolean {
    const entry = { atMs: said.nowMs, intervalMs: bounded(said.intervalMs) };
    if (!this.heardOf.has(id) && this.heardOf.size >= MAX_HEARD) this.forgetSilent();
    if (!this.heardOf.has(id) && this.heardOf.size >= MAX_HEARD) return false;
    this.heardOf.set(id, entry);
    return true;
  }

  /** An own heartbeat came back. */
  echo(nowMs: number): void {
    const deafMs = DEAF_INTERVALS * this.ownIntervalMs;
    if (this.echoMs === undefined || nowMs - this.echoMs > deafMs)
      this.listeningSinceMs = nowMs + RETURN_GRACE_MS;
    this.echoMs = nowMs;
  }

  /** It said that it ends. */
  forget(id: string): void {
    this.heardOf.delete(id);
  }

  heardAtMs(id: string): number | undefined {
    return this.heardOf.get(id)?.atMs;
  }

  /** How long `id` was silent at the last echo, and after how long it counts as silent. */
  silence(id: string, expectedIntervalMs: number): { ms: number; limitMs: number } {
    const entry = this.heardOf.get(id);
    const intervalMs = entry?.intervalMs ?? bounded(expectedIntervalMs);
    const limitMs = SILENT_INTERVALS * Math.max(intervalMs, this.ownIntervalMs);
    if (this.echoMs === undefined) return { ms: 0, limitMs };
    const since = Math.max(entry?.atMs ?? this.listeningSinceMs, this.listeningSinceMs);
    return { ms: Math.max(0, this.echoMs - since), limitMs };
  }

  /** `expectedIntervalMs`: the heartbeat interval of one that was never heard. */
  judge(id: string, expectedIntervalMs: number): Verdict {
    const { ms, limitMs } = this.silence(id, expectedIntervalMs);
    if (ms > limitMs) return "silent";
    return this.heardOf.has(id) ? "alive" : "unknown";
  }

  /** Ids that are alive. */
  alive(): string[] {
    return [...this.heardOf.keys()].filter((id) => this.judge(id, 0) === "alive");
  }

  private forgetSilent(): void {
    for (const id of [...this.heardOf.keys()])
      if (this.judge(id, 0) === "silent") this.heardOf.delete(id);
  }
}

/** A key of the bucket as it was last seen. */
export interface Entry<T> {
  /** 0: the key was never written. */
  revision: number;
  /** undefined: nobody holds it. */
  value: T | undefined;
}

export interface Holder {
  workerId: string;
  heartbeatIntervalMs: number;
}

export interface LeaseView {
  self: string;
  /** Tensor-parallel size. */
  size: number;
  leases: ReadonlyMap<number, Entry<Holder>>;
  judge: (id: string, expectedIntervalMs: number) => Verdict;
  /** The rank held before, whose weights may still be loaded; taken first when it is free. */
  preferred?: number | undefined;
}

export type LeaseMove =
  | { kind: "keep"; rank: number }
  | { kind: "take"; rank: number; revision: number }
  | { kind: "release"; rank: number; revision: number }
  | { kind: "wait" };

function ranksHeldBy(view: LeaseView): [number, number][] {
  return [...view.leases]
    .filter(([, { value }]) => value?.workerId === view.self)
    .map(([rank, { revision }]): [number, number] => [rank, revision])
    .sort(([a], [b]) => a - b);
}

/** One lease at most is kept; without one, the preferred or else the lowest rank that nobody alive holds is taken. */
export function chooseLease(view: LeaseView): LeaseMove {
  const held = ranksHeldBy(view);
  const kept = held.find(([rank]) => rank < view.size);
  const [extra] = held.filter((lease) => lease !== kept);
  if (extra !== undefined) return { kind: "release", rank: extra[0], revision: extra[1] };
  if (kept !== undefined) return { kind: "keep", rank: kept[0] };
  const free = Array.from({ length: view.size }, (_, rank) => rank).filter((rank) => {
    const holder = view.leases.get(rank)?.value;
    if (holder === undefined) return true;
    return view.judge(holder.workerId, holder.heartbeatIntervalMs) === "silent";
  });
  const rank = free.find((candidate) => candidate === view.preferred) ?? free[0];
  if (rank === undefined) return { kind: "wait" };
  return { kind: "take", rank, revision: view.leases.get(rank)?.revision ?? 0 };
}
