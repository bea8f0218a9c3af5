/**
 * Membership by NATS: this coordinator leads the group while its name stands in the group's entry, says there what the
 * group is, and composes epochs of the workers that hold the leases.
 */
import { randomUUID } from "node:crypto";
import type { ServeError } from "@tessera/proto";
import type { Heartbeat, Lease } from "@tessera/proto/gen/tessera/cluster/v1/cluster_pb.js";
import { HeartbeatBook } from "@tessera/proto/membership";
import { NatsGroup } from "@tessera/proto/nats";
import type { Logger } from "pino";
import type { Group } from "./group.js";
import type { Composition, Member, Membership } from "./membership.js";

const CONNECT_DEADLINE_MS = 10_000;
/** Attempts to reach a lease's holder before the lease is taken from it; a heartbeat does not help it then. */
const MAX_UNREACHED = 3;

export interface NatsMembershipOptions {
  url: string;
  group: string;
  /** Ranks, those that only encode tiles among them. */
  size: number;
  heartbeatIntervalMs: number;
  modelHash: string;
  build: string;
  log: Logger;
  onCancel: (requestId: string, tenant: string) => void;
}

export class NatsMembership implements Membership {
  readonly fixed = false;
  private readonly id = randomUUID();
  private readonly book: HeartbeatBook;
  /** Last heartbeats of those that the book remembers. */
  private readonly workers = new Map<string, Heartbeat>();
  private door: NatsGroup | undefined;
  private timer: NodeJS.Timeout | undefined;
  private running: Group | undefined;
  private epoch = 0n;
  private sequence = 0n;
  private writing: Promise<void> | undefined;
  /** By rank: who was not reached, and how often in a row. */
  private readonly unreached = new Map<number, { workerId: string; count: number }>();

  private constructor(private readonly options: NatsMembershipOptions) {
    this.book = new HeartbeatBook(options.heartbeatIntervalMs);
  }

  /** @throws ServeError CONFIGURATION when NATS is not reached or will not do. */
  static async open(options: NatsMembershipOptions): Promise<NatsMembership> {
    const { url, group, log } = options;
    const membership = new NatsMembership(options);
    const name = `tessera coordinator ${membership.id}`;
    membership.door = await NatsGroup.connect(
      { url, group, name, connectDeadlineMs: CONNECT_DEADLINE_MS },
      {
        heartbeat: (heartbeat) => membership.heard(heartbeat),
        coordinatorHeartbeat: ({ coordinatorId, heartbeatIntervalMs: intervalMs }) => {
          const nowMs = performance.now();
          if (coordinatorId === membership.id) membership.echo(nowMs);
          else membership.book.heard(coordinatorId, { intervalMs, nowMs });
        },
        cancel: ({ requestId, tenant }) => options.onCancel(requestId, tenant),
        event: ({ kind }) => {
          if (kind.case === "drained") membership.forget(kind.value.workerId);
        },
        changed: () => membership.lead(),
        problem: (why) => log.warn({ why }, "nats"),
      },
    );
    membership.timer = setInterval(() => membership.beat(), options.heartbeatIntervalMs);
    membership.beat();
    return membership;
  }

  get size(): number {
    return this.options.size;
  }

  private heard(heartbeat: Heartbeat): void {
    const { workerId, heartbeatIntervalMs: intervalMs } = heartbeat;
    const nowMs = performance.now();
    if (!this.book.heard(workerId, { intervalMs, nowMs })) return;
    if (!this.workers.has(workerId)) this.greet(heartbeat);
    this.workers.set(workerId, heartbeat);
    const rank = this.running?.ranks.find(({ info }) => info.workerId === workerId);
    if (rank !== undefined) rank.heardAtMs = nowMs;
  }

  /** Names a worker that can never take a lease here. */
  private greet({ workerId, address, modelHash, build }: Heartbeat): void {
    const { log, modelHash: ours, build: ourBuild } = this.options;
    if (modelHash !== ours)
      log.error(
        `worker ${workerId} (${address}) has model ${modelHash.slice(0, 12)}, the coordinator ${ours.slice(0, 12)}`,
      );
    else if (build !== ourBuild)
      log.error(`worker ${workerId} (${address}) has build ${build}, the coordinator ${ourBuild}`);
  }

  private forget(workerId: string): void {
    this.book.forget(workerId);
    this.workers.delete(workerId);
  }

  private beat(): void {
    this.door?.coordinatorHeartbeat({
      coordinatorId: this.id,
      epoch: this.epoch,
      sequence: ++this.sequence,
      heartbeatIntervalMs: this.options.heartbeatIntervalMs,
    });
    this.lead();
  }

  private echo(nowMs: number): void {
    this.book.echo(nowMs);
    for (const workerId of [...this.workers.keys()])
      if (this.book.heardAtMs(workerId) === undefined) this.workers.delete(workerId);
    this.judgeRunning(nowMs);
    this.lead();
  }

  /** A rank is silent when neither a heartbeat nor a step's result was heard of it for long enough. */
  private judgeRunning(nowMs: number): void {
    const { running, book, options } = this;
    running?.ranks.forEach(({ info, heardAtMs }, rank) => {
      const { ms, limitMs } = book.silence(info.workerId, options.heartbeatIntervalMs);
      if (ms > limitMs && nowMs - heardAtMs > limitMs)
        running.expel(rank, `no heartbeat for ${Math.round(ms)} ms, limit ${limitMs} ms`);
    });
  }

  /** Takes the group's entry when nobody alive leads, and keeps saying there what the group is. */
  private lead(): void {
    const { door, options } = this;
    if (door === undefined || this.writing !== undefined) return;
    if (!door.connected || !door.table.synced) return;
    const { revision, value: spec } = door.table.spec;
    const facts = {
      coordinatorId: this.id,
      rankCount: options.size,
      modelHash: options.modelHash,
      build: options.build,
      heartbeatIntervalMs: options.heartbeatIntervalMs,
    };
    if (spec?.coordinatorId === this.id) return;
    if (spec !== undefined && spec.coordinatorId !== "")
      if (this.book.judge(spec.coordinatorId, spec.heartbeatIntervalMs) !== "silent") return;
    this.write(() => door.putSpec(facts, revision));
  }

  private write(work: () => Promise<boolean>): void {
    const { log } = this.options;
    this.writing = work()
      .then(() => undefined)
      .catch((error: unknown) => log.warn({ why: String(error) }, "entry not written"))
      .finally(() => (this.writing = undefined));
  }

  compose(): Composition {
    const { door, options } = this;
    const short = (why: string): Composition => ({
      kind: "short",
      why: `group ${options.group}: ${why}`,
    });
    if (door === undefined || !door.table.synced) return short("its leases are not read yet");
    const leader = door.table.spec.value?.coordinatorId ?? "";
    if (leader === "") return short("no coordinator leads it yet");
    if (leader !== this.id) return short(`coordinator ${leader} leads it`);
    const members: Member[] = [];
    const missing: string[] = [];
    let aboveEpoch = 0n;
    for (let rank = 0; rank < options.size; rank++) {
      const lease = door.table.leases.get(rank)?.value;
      const problem = this.holderProblem(lease);
      if (problem !== undefined) missing.push(`rank ${rank} ${problem}`);
      else if (lease !== undefined) {
        members.push({ address: lease.address, workerId: lease.workerId });
        if (lease.epoch > aboveEpoch) aboveEpoch = lease.epoch;
      }
    }
    if (missing.length === 0) return { kind: "whole", members, aboveEpoch };
    return short(`${missing.join(", ")}; workers heard: ${this.liveWorkers()}`);
  }

  private liveWorkers(): number {
    return this.book.alive().filter((id) => this.workers.has(id)).length;
  }

  private holderProblem(lease: Lease | undefined): string | undefined {
    if (lease === undefined) return "has no lease";
    // While NATS is lost nobody is judged: the holders last known may well be there.
    if (this.door?.connected !== true) return undefined;
    const verdict = this.book.judge(lease.workerId, lease.heartbeatIntervalMs);
    if (verdict === "alive") return undefined;
    const word = verdict === "silent" ? "is silent" : "was not heard yet";
    return `(worker ${lease.workerId}, ${lease.address}) ${word}`;
  }

  formed(group: Group): void {
    this.running = group;
    this.epoch = group.epoch;
    this.unreached.clear();
    const workerIds = group.ranks.map(({ info }) => info.workerId);
    this.door?.event({ epoch: group.epoch, kind: { case: "epochFormed", value: { workerIds } } });
  }

  lost(error: ServeError): void {
    const { running } = this;
    this.running = undefined;
    const rank = Number(error.metadata["rank"] ?? NaN);
    const workerId = running?.ranks[rank]?.info.workerId;
    if (workerId === undefined) return;
    const value = { rank, workerId, reason: error.message };
    this.door?.event({ epoch: this.epoch, kind: { case: "rankLost", value } });
  }

  /** Releases the lease of a holder that is gone or was not reached several times, so that another can take it. */
  unreachable(rank: number, { workerId }: Member, gone: boolean): void {
    const { door, options } = this;
    if (workerId === undefined || door === undefined) return;
    const before = this.unreached.get(rank);
    const count = before?.workerId === workerId ? before.count + 1 : 1;
    this.unreached.set(rank, { workerId, count });
    const lease = door.table.leases.get(rank);
    if (lease?.value?.workerId !== workerId || this.writing !== undefined || !door.connected)
      return;
    if (!gone && count < MAX_UNREACHED) return;
    options.log.warn({ rank, workerId }, "lease released: its holder is not reached");
    this.write(() => door.releaseLease(rank, lease.revision));
  }

  /** Leaves the lead to another coordinator. */
  async close(): Promise<void> {
    clearInterval(this.timer);
    this.running = undefined;
    await this.writing;
    const { door } = this;
    const spec = door?.table.spec;
    if (door?.connected === true && spec?.value?.coordinatorId === this.id)
      await door.putSpec({ ...spec.value, coordinatorId: "" }, spec.revision).catch(() => false);
    await door?.close();
  }
}
