/** This worker's part on NATS: heartbeats, and the lease of one rank or, when all are held, waiting for one. */
import { WorkerState, type GroupSpec } from "@tessera/proto/gen/tessera/cluster/v1/cluster_pb.js";
import { chooseLease, HeartbeatBook, SILENT_INTERVALS } from "@tessera/proto/membership";
import { NatsGroup } from "@tessera/proto/nats";
import type { Logger } from "pino";

const CONNECT_DEADLINE_MS = 10_000;

export interface KeeperSettings {
  url: string;
  group: string;
  heartbeatIntervalMs: number;
  workerId: string;
  log: Logger;
}

export interface KeeperSelf {
  /** Advertised host:port of Shard. */
  address: string;
  modelHash: string;
  build: string;
  /** Of the rank as it stands now. */
  rank: () => { epoch: bigint; ready: boolean };
}

/** Why this worker may not take a lease of the group, in words; undefined when it may. */
export function specProblem(
  spec: Pick<GroupSpec, "modelHash" | "build"> | undefined,
  own: { modelHash: string; build: string },
): string | undefined {
  if (spec === undefined) return "no coordinator has said yet what the group is";
  if (spec.modelHash !== own.modelHash)
    return `has model ${spec.modelHash.slice(0, 12)}, this worker ${own.modelHash.slice(0, 12)}`;
  if (spec.build !== own.build) return `has build ${spec.build}, this worker ${own.build}`;
  return undefined;
}

export class LeaseKeeper {
  private door: NatsGroup | undefined;
  private self: KeeperSelf | undefined;
  private readonly book: HeartbeatBook;
  private timer: NodeJS.Timeout | undefined;
  private sequence = 0n;
  private held: number | undefined;
  private preferred: number | undefined;
  /** One whose lease was taken away lets others try first. */
  private notBeforeMs = 0;
  private writing: Promise<void> | undefined;
  private said: string | undefined;
  private closing = false;

  private constructor(private readonly settings: KeeperSettings) {
    this.book = new HeartbeatBook(settings.heartbeatIntervalMs);
  }

  /** @throws ServeError CONFIGURATION when NATS is not reached or will not do. */
  static async connect(settings: KeeperSettings): Promise<LeaseKeeper> {
    const { url, group, workerId, log } = settings;
    const keeper = new LeaseKeeper(settings);
    keeper.door = await NatsGroup.connect(
      { url, group, name: `tessera worker ${workerId}`, connectDeadlineMs: CONNECT_DEADLINE_MS },
      {
        heartbeat: ({ workerId: id, heartbeatIntervalMs: intervalMs }) => {
          const nowMs = performance.now();
          if (id === workerId) keeper.book.echo(nowMs);
          else keeper.book.heard(id, { intervalMs, nowMs });
        },
        event: ({ kind }) => {
          if (kind.case === "drained") keeper.book.forget(kind.value.workerId);
        },
        changed: () => keeper.act(),
        problem: (why) => log.warn({ why }, "nats"),
      },
    );
    return keeper;
  }

  /** From now on there are heartbeats, and a lease is taken. The Shard service must be reachable already. */
  start(self: KeeperSelf): void {
    this.self = self;
    this.timer = setInterval(() => this.beat(), this.settings.heartbeatIntervalMs);
    this.beat();
  }

  private beat(): void {
    const { self } = this;
    if (self === undefined) return;
    const { epoch, ready } = self.rank();
    this.door?.heartbeat({
      workerId: this.settings.workerId,
      address: self.address,
      modelHash: self.modelHash,
      build: self.build,
      epoch,
      sequence: ++this.sequence,
      heartbeatIntervalMs: this.settings.heartbeatIntervalMs,
      state: this.state(ready),
    });
    this.act();
  }

  private state(ready: boolean): WorkerState {
    if (this.closing) return WorkerState.DRAINING;
    if (ready) return WorkerState.SERVING;
    return this.held === undefined ? WorkerState.SPARE : WorkerState.LOADING;
  }

  /** One move at a time, by what the bucket holds now. */
  private act(): void {
    const { door, self, settings } = this;
    if (door === undefined || self === undefined || this.closing) return;
    if (this.writing !== undefined || !door.connected || !door.table.synced) return;
    const { spec, leases } = door.table;
    const problem = specProblem(spec.value, self);
    this.tell(problem, spec.value);
    const move = chooseLease({
      self: settings.workerId,
      size: problem === undefined ? (spec.value?.rankCount ?? 0) : 0,
      leases,
      judge: (id, intervalMs) => this.book.judge(id, intervalMs),
      preferred: this.preferred,
    });
    if (move.kind === "keep") return this.keep(move.rank);
    if (move.kind === "release") {
      this.held = undefined;
      return this.write(() => door.releaseLease(move.rank, move.revision));
    }
    if (this.held !== undefined) this.displaced(this.held);
    if (move.kind === "take" && performance.now() >= this.notBeforeMs)
      this.put(move.rank, move.revision);
  }

  private keep(rank: number): void {
    const { log, group } = this.settings;
    if (this.held !== rank) log.info({ rank, group }, "lease taken");
    this.held = rank;
    this.preferred = rank;
    const lease = this.door?.table.leases.get(rank);
    const { epoch, ready } = this.self?.rank() ?? { epoch: 0n, ready: false };
    if (ready && lease?.value !== undefined && lease.value.epoch !== epoch)
      this.put(rank, lease.revision);
  }

  private displaced(rank: number): void {
    const { log, group, heartbeatIntervalMs } = this.settings;
    const entry = this.door?.table.leases.get(rank);
    const by = entry?.value?.workerId;
    log.warn({ rank, group, ...(by === undefined ? {} : { by }) }, "lease lost");
    this.held = undefined;
    // Without an entry the bucket itself is new; nobody took the lease away.
    if (entry !== undefined)
      this.notBeforeMs = performance.now() + 2 * SILENT_INTERVALS * heartbeatIntervalMs;
  }

  private put(rank: number, revision: number): void {
    const { door, self, settings } = this;
    if (door === undefined || self === undefined) return;
    const { workerId, heartbeatIntervalMs } = settings;
    const { epoch } = self.rank();
    const lease = { workerId, address: self.address, rank, epoch, heartbeatIntervalMs };
    this.write(() => door.putLease(lease, revision));
  }

  /** Whether it was done is seen in the table, not here: an answer may be lost. */
  private write(work: () => Promise<boolean>): void {
    const { log } = this.settings;
    this.writing = work()
      .then(() => undefined)
      .catch((error: unknown) => log.warn({ why: String(error) }, "lease not written"))
      .finally(() => (this.writing = undefined));
  }

  private tell(problem: string | undefined, spec: GroupSpec | undefined): void {
    if (problem === this.said) return;
    this.said = problem;
    const { log, group } = this.settings;
    if (problem === undefined) return;
    if (spec === undefined) log.info(`group ${group}: ${problem}`);
    else log.error(`group ${group} ${problem}: it takes no lease and stays a spare`);
  }

  /** Releases the lease, so that a spare can take it at once. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    clearInterval(this.timer);
    await this.writing;
    const { door, settings } = this;
    if (door === undefined) return;
    if (this.self !== undefined && door.connected) {
      this.beat();
      for (const [rank, { revision, value }] of door.table.leases)
        if (value?.workerId === settings.workerId)
          await door.releaseLease(rank, revision).catch(() => false);
      door.event({ kind: { case: "drained", value: { workerId: settings.workerId } } });
    }
    await door.close();
  }
}
