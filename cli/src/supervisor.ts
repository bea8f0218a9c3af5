/** Coordinator and workers as child processes; a worker that dies is started again on its port. */
import { spawn, type ChildProcess } from "node:child_process";
import { cpus } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { TesseraClient } from "@tessera/client";
import { placementArgs, type PlacementFlags } from "./commands/options.js";

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
  /** With commas between. */
  corsOrigin?: string | undefined;
  /** grpc.reflection on every process. */
  reflection?: boolean | undefined;
  flags: PlacementFlags;
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
  /** May be called again while it runs. */
  stop(): Promise<void>;
}

interface Announcement {
  event: string;
  address: string;
  health?: string;
  http?: string;
}

/** Workers in all. */
function count({ workers, flags }: ClusterSettings): number {
  return workers + (flags.visionWorkers ?? 0);
}

const START_DEADLINE_MS = 60_000;
const READY_DEADLINE_MS = 10 * 60_000;
/** Longer than the 3 s that the coordinator takes at most to end streams when it is told to end. */
const STOP_DEADLINE_MS = 10_000;
const RESTART_DELAY_MS = 300;
const BIN = fileURLToPath(new URL("../bin/tessera.js", import.meta.url));

class Child {
  private constructor(
    readonly process: ChildProcess,
    readonly said: Announcement,
  ) {}

  /** Resolves at the child's line on stdout. The child ends when this process does: its stdin closes. */
  static start(args: string[], environment: Record<string, string> = {}): Promise<Child> {
    const child = spawn(process.execPath, [BIN, ...args, "--end-with-stdin"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...environment },
    });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        reject(new Error(`${args[0]}: did not start within ${START_DEADLINE_MS} ms`));
      }, START_DEADLINE_MS);
      child.once("exit", (code, signal) => {
        clearTimeout(timer);
        reject(new Error(`${args[0]}: ended with ${signal ?? code} before it listened`));
      });
      createInterface({ input: child.stdout }).once("line", (line) => {
        clearTimeout(timer);
        child.removeAllListeners("exit");
        resolve(new Child(child, JSON.parse(line) as Announcement));
      });
    });
  }

  /** Rejects when the child ends. */
  ended(): Promise<never> {
    return new Promise((_, reject) => {
      this.process.once("exit", (code, signal) =>
        reject(new Error(`${this.process.spawnargs[2]}: ended with ${signal ?? code}`)),
      );
    });
  }

  async stop(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    const timer = setTimeout(() => this.process.kill("SIGKILL"), STOP_DEADLINE_MS);
    await gone;
    clearTimeout(timer);
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
    if (settings.reflection === true) args.push("--reflection");
    const child = await Child.start(args, settings.environment?.(rank));
    this.workers[rank] = child;
    child.process.once("exit", () => void this.restart(rank, child.said.address));
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

async function untilReady(address: string): Promise<void> {
  const client = new TesseraClient({ addresses: [address], deadlineMs: 5000 });
  const end = Date.now() + READY_DEADLINE_MS;
  try {
    while (Date.now() < end) {
      const { epoch } = await client.getCluster();
      if (epoch > 0n) return;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    throw new Error(`the group was not formed within ${READY_DEADLINE_MS} ms`);
  } finally {
    client.close();
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
    ["--cors-origin", settings.corsOrigin],
  ];
  return [
    "coordinator",
    ...pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)])),
    ...placementArgs(settings.flags),
    ...(settings.reflection === true ? ["--reflection"] : []),
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
    const addresses = workers.map((worker) => worker.said.address).join(",");
    coordinator = await Child.start(coordinatorArgs(settings, addresses));
    await Promise.race([untilReady(coordinator.said.address), coordinator.ended()]);
  } catch (error) {
    await stop();
    throw error;
  }
  const front = coordinator;
  return {
    address: front.said.address,
    health: front.said.health,
    http: front.said.http,
    workerHealth: () => supervisor.workers.map(({ said }) => said.health),
    workerPids: () => supervisor.workers.map((worker) => worker.process.pid ?? 0),
    pids: () =>
      [front.process, ...supervisor.workers.map(({ process }) => process)].map(
        ({ pid }) => pid ?? 0,
      ),
    stop,
  };
}
