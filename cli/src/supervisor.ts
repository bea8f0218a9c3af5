/** Coordinator and workers as child processes; a worker that dies is started again on its port. */
import { cpus } from "node:os";
import { Child } from "./child.js";
import { DRAIN } from "./commands/parent.js";
import { placementArgs, type PlacementFlags, type Transport } from "./commands/options.js";
import {
  peerTlsArgs,
  serverSecurityArgs,
  type ServerSecurityFlags,
} from "./commands/security-flags.js";

export interface ClusterSettings {
  model: string;
  /** That hold the decoder; `flags.visionWorkers` come beside them. */
  workers: number;
  threads?: number | undefined;
  /** 0 takes a free one. */
  port: number;
  healthPort?: number | undefined;
  /** host:port of the HTTP front; absent: there is none. */
  http?: string | undefined;
  httpBodyLimit?: number | undefined;
  /** Of the HTTP front's files and batches. */
  dataDir?: string | undefined;
  /** With commas between. */
  corsOrigin?: string | undefined;
  /** Of sums between the workers; absent: auto. */
  transport?: Transport | undefined;
  /** grpc.reflection on every process. */
  reflection?: boolean | undefined;
  flags: PlacementFlags;
  /** Keys and certificates of every process; absent: none, on loopback. */
  security?: ServerSecurityFlags | undefined;
  /** More environment for one rank; tests force kinds of kernels with it. */
  environment?: (rank: number) => Record<string, string>;
}

export interface Cluster {
  address: string;
  health: string | undefined;
  /** host:port of the HTTP front. */
  http: string | undefined;
  /** Where the workers' metrics and probes are, by rank; without `healthPort` none. */
  workerHealth(): (string | undefined)[];
  workerPids(): number[];
  /** Of the coordinator, then of the workers by rank. */
  pids(): number[];
  /** Takes nothing new; resolves when what runs is answered. */
  drain(): Promise<void>;
  /** May be called again while it runs. */
  stop(): Promise<void>;
}

/** Workers in all. */
function count({ workers, flags }: ClusterSettings): number {
  return workers + (flags.visionWorkers ?? 0);
}

const START_DEADLINE_MS = 60_000;
const READY_DEADLINE_MS = 10 * 60_000;
/** Longer than the 30 s that the coordinator gives running requests. */
const DRAIN_DEADLINE_MS = 35_000;
const RESTART_DELAY_MS = 300;

/** Resolves when the child listens. */
async function startChild(args: string[], environment?: Record<string, string>): Promise<Child> {
  const child = new Child(args, environment);
  try {
    await child.until("listening", START_DEADLINE_MS);
    return child;
  } catch (error) {
    child.kill();
    throw error;
  }
}

class Supervisor {
  readonly workers: Child[] = [];
  stopping = false;
  constructor(private readonly settings: ClusterSettings) {}

  async startWorker(rank: number, listen: string): Promise<Child> {
    const { settings } = this;
    const threads = settings.threads ?? Math.max(1, Math.floor(cpus().length / count(settings)));
    const level = ["--log-level", settings.flags.logLevel];
    const args = [
      "worker",
      "--model",
      settings.model,
      "--listen",
      listen,
      "--threads",
      String(threads),
      ...level,
    ];
    if (settings.healthPort !== undefined) args.push("--health-listen", "127.0.0.1:0");
    if (settings.transport !== undefined) args.push("--transport", settings.transport);
    if (settings.reflection === true) args.push("--reflection");
    args.push(...peerTlsArgs(settings.security ?? {}));
    const child = await startChild(args, settings.environment?.(rank));
    this.workers[rank] = child;
    child.process.once("exit", () => void this.restart(rank, child.address));
    return child;
  }

  private async restart(rank: number, address: string): Promise<void> {
    while (!this.stopping) {
      await new Promise((resolve) => setTimeout(resolve, RESTART_DELAY_MS));
      if (this.stopping) return;
      try {
        await this.startWorker(rank, address);
        return;
      } catch (error) {
        process.stderr.write(`worker ${rank}: ${String(error)}\n`);
      }
    }
  }
}

function coordinatorArgs(settings: ClusterSettings, workers: string): string[] {
  const { healthPort } = settings;
  const pairs: [string, string | number | undefined][] = [
    ["--model", settings.model],
    ["--workers", workers],
    ["--listen", `127.0.0.1:${settings.port}`],
    ["--health-listen", healthPort === undefined ? undefined : `127.0.0.1:${healthPort}`],
    ["--http", settings.http],
    ["--http-body-limit", settings.httpBodyLimit],
    ["--data-dir", settings.dataDir],
    ["--cors-origin", settings.corsOrigin],
  ];
  return [
    "coordinator",
    ...pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)])),
    ...placementArgs(settings.flags),
    ...(settings.reflection === true ? ["--reflection"] : []),
    ...serverSecurityArgs(settings.security ?? {}),
  ];
}

/** Resolves when the group stands. */
export async function startCluster(settings: ClusterSettings): Promise<Cluster> {
  const supervisor = new Supervisor(settings);
  let coordinator: Child | undefined;
  let stopped: Promise<void> | undefined;
  const stopAll = async () => {
    supervisor.stopping = true;
    await coordinator?.stop();
    await Promise.all(supervisor.workers.map((worker) => worker.stop()));
  };
  const stop = () => (stopped ??= stopAll());
  try {
    const ranks = Array.from({ length: count(settings) }, (_, rank) => rank);
    const workers = await Promise.all(
      ranks.map((rank) => supervisor.startWorker(rank, "127.0.0.1:0")),
    );
    const addresses = workers.map((worker) => worker.address).join(",");
    coordinator = await startChild(coordinatorArgs(settings, addresses));
    await coordinator.until("ready", READY_DEADLINE_MS);
  } catch (error) {
    await stop();
    throw error;
  }
  const front = coordinator;
  return {
    address: front.address,
    health: front.health,
    http: front.http,
    workerHealth: () => supervisor.workers.map(({ health }) => health),
    workerPids: () => supervisor.workers.map((worker) => worker.process.pid ?? 0),
    pids: () =>
      [front.process, ...supervisor.workers.map(({ process }) => process)].map(
        ({ pid }) => pid ?? 0,
      ),
    async drain() {
      front.tell(DRAIN);
      await front.until("drained", DRAIN_DEADLINE_MS);
    },
    stop,
  };
}
