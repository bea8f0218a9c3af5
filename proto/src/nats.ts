/**
 * The door to NATS: heartbeats, cancels and events of one group under `tessera.<group>`, leases in the KV bucket
 * `tessera_<group>`. The only file that knows the package `nats`.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  connect,
  Events,
  type ConnectionOptions,
  type KV,
  type KvEntry,
  type NatsConnection,
  type QueuedIterator,
} from "nats";
import { ServeError } from "./errors.js";
import {
  CancelSchema,
  ClusterEventSchema,
  CoordinatorHeartbeatSchema,
  GroupSpecSchema,
  HeartbeatSchema,
  LeaseSchema,
  type Cancel,
  type ClusterEvent,
  type CoordinatorHeartbeat,
  type GroupSpec,
  type Heartbeat,
  type Lease,
} from "./gen/tessera/cluster/v1/cluster_pb.js";
import type { Entry } from "./membership.js";
import { parseNatsUrl, serverProblem } from "./nats-server.js";

/** Of each call to the server. */
const CALL_DEADLINE_MS = 2000;
const CLOSE_DEADLINE_MS = 1000;
/** Between two attempts to connect, and to watch. */
const RETRY_MS = 250;
/** A server that answers none of two pings is left. */
const PING_INTERVAL_MS = 5000;
const MAX_PINGS_OUT = 2;
/** JetStream's "wrong last sequence": the key changed since the revision that was read. */
const WRONG_REVISION = 10071;

export interface NatsOptions {
  /** nats://[user:password@]host[:port], or several with commas between. */
  url: string;
  group: string;
  /** Shown by the server's list of connections. */
  name: string;
  connectDeadlineMs: number;
}

/** What the bucket holds, as far as it was heard. */
export interface GroupTable {
  /** The bucket was read whole since the last connect. */
  synced: boolean;
  spec: Entry<GroupSpec>;
  /** By rank; one without an entry was never held. */
  leases: Map<number, Entry<Lease>>;
}

export interface NatsHandlers {
  heartbeat(heartbeat: Heartbeat): void;
  coordinatorHeartbeat?(heartbeat: CoordinatorHeartbeat): void;
  cancel?(cancel: Cancel): void;
  event?(event: ClusterEvent): void;
  /** The table or the connection is another. */
  changed(): void;
  /** Something to log; not said twice in a row. */
  problem(message: string): void;
}

function emptyTable(): GroupTable {
  return { synced: false, spec: { revision: 0, value: undefined }, leases: new Map() };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits for the work, but not longer than `ms`; a failure is as good as an end. */
async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work.catch(() => undefined), late]);
  clearTimeout(timer);
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export class NatsGroup {
  /** Replaced when the bucket is read anew; never held on to by a reader. */
  table = emptyTable();
  private kv: KV | undefined;
  private watching: QueuedIterator<KvEntry> | undefined;
  private isConnected = true;
  private closing = false;
  private said = "";

  private constructor(
    private readonly connection: NatsConnection,
    readonly group: string,
    /** Of the server, without secrets. */
    readonly shownUrl: string,
    private readonly handlers: NatsHandlers,
  ) {}

  /**
   * Resolves when the server is good and the bucket is there and was read.
   * @throws ServeError CONFIGURATION: not reached within the deadline, too old, JetStream off, bucket unfit.
   */
  static async connect(options: NatsOptions, handlers: NatsHandlers): Promise<NatsGroup> {
    const { options: servers, shown } = parseNatsUrl(options.url);
    const connection = await connectWithin({ ...servers, name: options.name }, shown, options);
    const group = new NatsGroup(connection, options.group, shown, handlers);
    try {
      const problem = serverProblem(connection.info?.version ?? "unknown");
      if (problem !== undefined) throw new ServeError("CONFIGURATION", `${shown}: ${problem}`);
      await group.checkJetStream();
      group.subscribeAll();
      await group.openWatch();
    } catch (error) {
      await connection.close();
      throw ServeError.from(error);
    }
    void group.followStatus();
    void group.keepWatching();
    void connection.closed().then((error) => group.ended(error));
    return group;
  }

  /** False while the connection to the server is lost; it comes back by itself. */
  get connected(): boolean {
    return this.isConnected && !this.closing;
  }

  private subject(...parts: string[]): string {
    return ["tessera", this.group, ...parts].join(".");
  }

  private tell(message: string): void {
    if (message === this.said) return;
    this.said = message;
    this.handlers.problem(message);
  }

  private async checkJetStream(): Promise<void> {
    try {
      await this.connection.jetstreamManager({ timeout: CALL_DEADLINE_MS });
    } catch (error) {
      throw new ServeError(
        "CONFIGURATION",
        `${this.shownUrl}: JetStream is off (${reason(error)}); start nats-server with -js`,
        { cause: error },
      );
    }
  }

  private subscribe<D extends DescMessage>(
    subject: string,
    schema: D,
    take: (handlers: NatsHandlers, message: MessageShape<D>) => void,
  ): void {
    this.connection.subscribe(subject, {
      callback: (error, message) => {
        if (error !== null) return this.tell(`${subject}: ${error.message}`);
        try {
          const body = fromBinary(schema, message.data);
          take(this.handlers, body);
        } catch (cause) {
          this.tell(`${message.subject}: no ${schema.typeName}: ${reason(cause)}`);
        }
      },
    });
  }

  private subscribeAll(): void {
    this.subscribe(this.subject("heartbeat", "*"), HeartbeatSchema, (h, m) => h.heartbeat(m));
    this.subscribe(this.subject("coordinator", "*"), CoordinatorHeartbeatSchema, (h, m) =>
      h.coordinatorHeartbeat?.(m),
    );
    this.subscribe(this.subject("cancel"), CancelSchema, (h, m) => h.cancel?.(m));
    this.subscribe(this.subject("event"), ClusterEventSchema, (h, m) => h.event?.(m));
  }

  /** The client gave up, which it does on a fault of its own only. */
  private ended(error: unknown): void {
    this.isConnected = false;
    if (!this.closing) this.tell(`${this.shownUrl}: connection closed for good: ${reason(error)}`);
  }

  private async followStatus(): Promise<void> {
    for await (const { type } of this.connection.status()) {
      if (type === Events.Disconnect) {
        this.isConnected = false;
        this.tell(`${this.shownUrl}: connection lost`);
      }
      if (type === Events.Reconnect) {
        this.isConnected = true;
        this.tell(`${this.shownUrl}: connected again`);
        this.watching?.stop();
      }
      this.handlers.changed();
    }
  }

  /** Opens the bucket, which is made when it is missing, and reads it into a new table. */
  private async openWatch(): Promise<void> {
    const js = this.connection.jetstream({ timeout: CALL_DEADLINE_MS });
    const kv = await js.views.kv(`tessera_${this.group}`, {
      history: 1,
      timeout: CALL_DEADLINE_MS,
    });
    const status = await kv.status();
    if (status.ttl > 0)
      throw new ServeError(
        "CONFIGURATION",
        `bucket tessera_${this.group}: has a TTL of ${status.ttl} ms, must have none: leases would vanish unannounced`,
      );
    const watching = await kv.watch();
    this.table = { ...emptyTable(), synced: status.values === 0 };
    this.kv = kv;
    this.watching = watching;
  }

  /** Reads what changes until the connection is closed; opens the watch again whenever it ends. */
  private async keepWatching(): Promise<void> {
    while (!this.closing) {
      try {
        for await (const entry of this.watching ?? []) this.take(entry);
        this.watching = undefined;
        await pause(RETRY_MS);
        if (this.connected) await this.openWatch();
      } catch (error) {
        this.watching = undefined;
        this.tell(`bucket tessera_${this.group}: ${reason(error)}`);
      }
    }
  }

  private take(entry: KvEntry): void {
    const { table } = this;
    const { key, revision, operation } = entry;
    try {
      const bytes = operation === "PUT" ? entry.value : undefined;
      const read = <D extends DescMessage>(schema: D): Entry<MessageShape<D>> => ({
        revision,
        value: bytes === undefined ? undefined : fromBinary(schema, bytes),
      });
      const rank = /^lease\.(\d{1,4})$/.exec(key)?.[1];
      if (key === "group") table.spec = read(GroupSpecSchema);
      else if (rank !== undefined) table.leases.set(Number(rank), read(LeaseSchema));
    } catch (cause) {
      this.tell(`key ${key} of bucket tessera_${this.group}: ${reason(cause)}`);
    }
    if (entry.delta === 0) table.synced = true;
    this.handlers.changed();
  }

  private publish<D extends DescMessage>(
    subject: string,
    schema: D,
    message: MessageInitShape<D>,
  ): void {
    // While there is no connection the client would keep messages and send them late.
    if (this.connected) this.connection.publish(subject, toBinary(schema, create(schema, message)));
  }

  /** Not sent while there is no connection. */
  heartbeat(heartbeat: MessageInitShape<typeof HeartbeatSchema> & { workerId: string }): void {
    this.publish(this.subject("heartbeat", heartbeat.workerId), HeartbeatSchema, heartbeat);
  }
  /** Not sent while there is no connection. */
  coordinatorHeartbeat(
    heartbeat: MessageInitShape<typeof CoordinatorHeartbeatSchema> & { coordinatorId: string },
  ): void {
    const subject = this.subject("coordinator", heartbeat.coordinatorId);
    this.publish(subject, CoordinatorHeartbeatSchema, heartbeat);
  }
  /** Ends a running request wherever in the group it runs. Not sent while there is no connection. */
  cancel(cancel: MessageInitShape<typeof CancelSchema>): void {
    this.publish(this.subject("cancel"), CancelSchema, cancel);
  }
  /** Not sent while there is no connection. */
  event(event: MessageInitShape<typeof ClusterEventSchema>): void {
    this.publish(this.subject("event"), ClusterEventSchema, event);
  }

  /**
   * Writes a key, or deletes it, if it is still at `revision`; false when it is not.
   * @throws when the server is not reached or refuses
   */
  private async write(
    key: string,
    bytes: Uint8Array | undefined,
    revision: number,
  ): Promise<boolean> {
    const { kv } = this;
    if (kv === undefined || !this.connected) throw new Error(`${this.shownUrl}: not connected`);
    try {
      if (bytes === undefined) await kv.delete(key, { previousSeq: revision });
      else await kv.put(key, bytes, { previousSeq: revision });
      return true;
    } catch (error) {
      const code = (error as { api_error?: { err_code?: number } }).api_error?.err_code;
      if (code !== WRONG_REVISION) throw error;
      // The table is behind: read it anew, in case nothing is to come.
      this.watching?.stop();
      return false;
    }
  }

  /** Takes, renews or takes over. */
  putLease(
    lease: MessageInitShape<typeof LeaseSchema> & { rank: number },
    revision: number,
  ): Promise<boolean> {
    const bytes = toBinary(LeaseSchema, create(LeaseSchema, lease));
    return this.write(`lease.${lease.rank}`, bytes, revision);
  }
  releaseLease(rank: number, revision: number): Promise<boolean> {
    return this.write(`lease.${rank}`, undefined, revision);
  }
  putSpec(spec: MessageInitShape<typeof GroupSpecSchema>, revision: number): Promise<boolean> {
    return this.write("group", toBinary(GroupSpecSchema, create(GroupSpecSchema, spec)), revision);
  }

  /** What was published is sent first, if the server takes it within a second. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    if (this.isConnected) await atMost(CLOSE_DEADLINE_MS, this.connection.flush());
    this.watching?.stop();
    await atMost(CLOSE_DEADLINE_MS, this.connection.close());
  }
}

async function connectWithin(
  options: ConnectionOptions,
  shown: string,
  { connectDeadlineMs }: NatsOptions,
): Promise<NatsConnection> {
  const end = performance.now() + connectDeadlineMs;
  for (;;) {
    try {
      return await connect({
        ...options,
        timeout: CALL_DEADLINE_MS,
        maxReconnectAttempts: -1,
        reconnectTimeWait: RETRY_MS,
        reconnectJitter: RETRY_MS,
        pingInterval: PING_INTERVAL_MS,
        maxPingOut: MAX_PINGS_OUT,
        ignoreAuthErrorAbort: true,
      });
    } catch (error) {
      if (performance.now() + RETRY_MS > end)
        throw new ServeError(
          "CONFIGURATION",
          `${shown}: not reached within ${connectDeadlineMs} ms: ${reason(error)}`,
          { cause: error },
        );
      await pause(RETRY_MS);
    }
  }
}
