/** A real nats-server on a free port of 127.0.0.1, and workers and coordinators that find each other through it. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { TesseraClient } from "@tessera/client";
import { GroupState, type GetClusterResponse } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { root } from "./paths.js";
import { program } from "./programs.js";

/** Of the groups started here, unless they say otherwise; a process is silent after six of them. */
export const HEARTBEAT_MS = 250;
export const SILENT_MS = 6 * HEARTBEAT_MS;
const START_DEADLINE_MS = 20_000;
const STOP_DEADLINE_MS = 5000;

/** Asks again and again until `ask` gives something. @throws Error naming `what` at the deadline */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  deadlineMs = START_DEADLINE_MS,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  while (performance.now() < end) {
    const got = await ask();
    if (got !== undefined) return got;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  throw new Error(`not within ${deadlineMs} ms: ${what}`);
}

/** Resolves to the exit status; null when a signal ended it. */
async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS);
  await gone;
  clearTimeout(timer);
  return child.exitCode;
}

export class NatsServer {
  private child: ChildProcess | undefined;
  private port = -1;

  private constructor(
    private readonly dir: string,
    private readonly args: string[],
  ) {}

  /** `jetStream` with a store of its own. */
  static async start({ jetStream = true } = {}): Promise<NatsServer> {
    const dir = await mkdtemp(join(tmpdir(), "tessera-nats-"));
    const server = new NatsServer(dir, jetStream ? ["-js", "-sd", join(dir, "store")] : []);
    await server.restart();
    return server;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  /** After a stop: the same port and the same store. */
  async restart(): Promise<void> {
    const where = ["-a", "127.0.0.1", "-p", String(this.port), "--ports_file_dir", this.dir];
    const child = spawn(program("nats-server"), [...where, ...this.args], { stdio: "ignore" });
    this.child = child;
    const path = join(this.dir, `nats-server_${child.pid}.ports`);
    const text = await until("nats-server listens", () =>
      readFile(path, "utf8").then(
        (said) => (said.trim().endsWith("}") ? said : undefined),
        () => undefined,
      ),
    );
    const [url = ""] = (JSON.parse(text) as { nats: string[] }).nats;
    this.port = Number(new URL(url).port);
  }

  async stop(): Promise<void> {
    if (this.child !== undefined) await end(this.child, "SIGKILL");
  }

  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  /** After a stop: forgets everything. */
  async dropStore(): Promise<void> {
    await rm(join(this.dir, "store"), { recursive: true });
  }

  async remove(): Promise<void> {
    await this.stop();
    await rm(this.dir, { recursive: true });
  }
}

/** A `tessera` command that says that it listens. */
export class Process {
  /** Everything on stderr so far. */
  log = "";
  address = "";

  private constructor(private readonly child: ChildProcess) {
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.log += text));
  }

  static async start(args: string[]): Promise<Process> {
    const child = spawn(
      process.execPath,
      [root("cli/bin/tessera.js"), ...args, "--end-with-stdin"],
      {
        stdio: ["pipe", "pipe", "pipe"],
      },
    );
    const started = new Process(child);
    createInterface({ input: child.stdout }).once("line", (line) => {
      started.address = (JSON.parse(line) as { address: string }).address;
    });
    await until(`${args[0]} listens`, () => {
      if (child.exitCode !== null) throw new Error(`${args[0]} ended: ${started.log}`);
      return started.address === "" ? undefined : true;
    });
    return started;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Resolves to the exit status. */
  stop(): Promise<number | null> {
    return end(this.child, "SIGTERM");
  }
}

export interface WorkerChange {
  model?: string;
  listen?: string;
  advertise?: string;
}

export interface GroupOnNats {
  client: TesseraClient;
  coordinator: Process;
  /** In the order of their start, which is not that of the ranks. */
  workers: Process[];
  /** The worker that serves `rank` now. */
  workerOf(rank: number): Promise<Process>;
  addWorker(change?: WorkerChange): Promise<Process>;
  /** One more, with a client of its own. */
  addCoordinator(): Promise<{ coordinator: Process; client: TesseraClient }>;
  /** Resolves when a group stands whose epoch is above. */
  formed(above?: bigint): Promise<GetClusterResponse>;
  stop(): Promise<void>;
}

export interface GroupSettings {
  url: string;
  group: string;
  size: number;
  /** Ranks beside these that only encode tiles. */
  visionWorkers?: number;
  heartbeatMs?: number;
}

/** Resolves when a group stands whose epoch is above. */
export function formed(client: TesseraClient, above = 0n): Promise<GetClusterResponse> {
  return until(`a group stands above epoch ${above}`, async () => {
    const cluster = await client.getCluster();
    const stands = cluster.state === GroupState.READY && cluster.epoch > above;
    return stands ? cluster : undefined;
  });
}

const TINY = root("models/nvlm-d-tiny");
const FREE = "127.0.0.1:0";

class Group implements GroupOnNats {
  readonly workers: Process[] = [];
  private readonly others: (() => Promise<unknown>)[] = [];
  private front: { coordinator: Process; client: TesseraClient } | undefined;
  private readonly shared: string[];

  constructor(private readonly settings: GroupSettings) {
    const { url, group, heartbeatMs = HEARTBEAT_MS } = settings;
    this.shared = ["--nats", url, "--group", group, "--heartbeat-ms", String(heartbeatMs)];
  }

  get client(): TesseraClient {
    return this.first.client;
  }
  get coordinator(): Process {
    return this.first.coordinator;
  }
  private get first() {
    if (this.front === undefined) throw new Error("no coordinator is started");
    return this.front;
  }

  async addWorker({ model = TINY, listen = FREE, advertise }: WorkerChange = {}): Promise<Process> {
    const args = ["worker", "--model", model, "--listen", listen, "--threads", "1"];
    if (advertise !== undefined) args.push("--advertise", advertise, "--insecure-bind");
    const worker = await Process.start([...args, ...this.shared]);
    this.workers.push(worker);
    return worker;
  }

  async addCoordinator() {
    const args = ["coordinator", "--model", TINY, "--listen", FREE, ...this.shared];
    const { size, visionWorkers } = this.settings;
    args.push("--tensor-parallel", String(size));
    if (visionWorkers !== undefined) args.push("--vision-workers", String(visionWorkers));
    const coordinator = await Process.start(args);
    const client = new TesseraClient({ addresses: [coordinator.address], deadlineMs: 60_000 });
    this.others.push(() => {
      client.close();
      return coordinator.stop();
    });
    const added = { coordinator, client };
    this.front ??= added;
    return added;
  }

  async workerOf(rank: number): Promise<Process> {
    const { ranks } = await this.client.getCluster();
    const address = ranks[rank]?.address;
    const found = this.workers.findLast((worker) => worker.address === address);
    if (found === undefined) throw new Error(`rank ${rank} (${address}) is none of the workers`);
    return found;
  }

  formed(above?: bigint): Promise<GetClusterResponse> {
    return formed(this.client, above);
  }

  async stop(): Promise<void> {
    await Promise.all(this.others.map((stop) => stop()));
    await Promise.all(this.workers.map((worker) => worker.stop()));
  }
}

/** A coordinator and as many workers as it has ranks. */
export async function startGroup(settings: GroupSettings): Promise<GroupOnNats> {
  const group = new Group(settings);
  const { size, visionWorkers = 0 } = settings;
  const workers = Array.from({ length: size + visionWorkers }, () => group.addWorker());
  await Promise.all([group.addCoordinator(), ...workers]);
  return group;
}
