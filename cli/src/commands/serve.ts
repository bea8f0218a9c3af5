/** tessera up, worker, coordinator. */
import { cpus } from "node:os";
import type { Command } from "commander";
import type { CoordinatorOptions } from "@tessera/coordinator/options";
import type { WorkerOptions } from "@tessera/shard-worker/options";
import { checkCluster, checkModel } from "./check-cluster.js";
import { checkAll } from "./check-start.js";
import { addHttp, checkHttp, DEFAULT_HTTP, httpOptions, type HttpFlags } from "./http-flags.js";
import { followParent, say } from "./parent.js";
import { addPeerTls, addServerSecurity, securityOptions } from "./security-flags.js";
import type { ServerSecurityFlags, TlsFlags } from "./security-flags.js";
import { addPlacement, logLevel, MAX_REQUESTS, port, transport, whole } from "./options.js";
import type { PlacementFlags, Transport } from "./options.js";

interface Running {
  address: string;
  healthAddress: string | undefined;
  httpAddress?: string | undefined;
  close(): Promise<void>;
  drain?(limitMs: number): Promise<void>;
}

/** What running requests have left when the parent says that this process drains. */
const DRAIN_MS = 30_000;

/** Says where it listens, and ends on a signal, or when stdin closes where a parent holds it. */
function announce(running: Running, withStdin: boolean): void {
  const { address, healthAddress: health, httpAddress: http } = running;
  say({ event: "listening", address, health, http });
  const end = () => void running.close().finally(() => process.exit(0));
  process.once("SIGTERM", end);
  if (!withStdin) return void process.once("SIGINT", end);
  // A terminal's Ctrl-C reaches the whole process group; the parent decides when its children end.
  process.on("SIGINT", () => undefined);
  const drain = () => void running.drain?.(DRAIN_MS).then(() => say({ event: "drained" }));
  followParent({ drain, end });
}

/** Where a child process listens. */
const LOOPBACK = "127.0.0.1:0";

const MEMBERSHIP_PAGE = "docs/membership.md";

const SECURITY_PAGE = "docs/security.md";

function addNats(command: Command): Command {
  return command
    .option("--nats <url>", "nats://[user:password@]host[:port]; several with commas between")
    .option("--group <name>", 'of those that belong together on one NATS (default: "default")')
    .option("--heartbeat-ms <ms>", "between two heartbeats on NATS (default: 500)", whole);
}

interface WorkerFlags extends TlsFlags {
  model: string;
  listen: string;
  advertise?: string;
  nats?: string;
  group?: string;
  heartbeatMs?: number;
  threads: number;
  memory?: number;
  healthListen?: string;
  exchangeSpinUs?: number;
  transport?: Transport;
  shmDir?: string;
  logLevel: string;
  reflection?: boolean;
  endWithStdin?: boolean;
}

function addWorker(program: Command): void {
  addPeerTls(addNats(program.command("worker")))
    .description("one rank: holds its cut of the weights and computes")
    .requiredOption("--model <dir>", "config.json, safetensors, tokenizer")
    .requiredOption("--listen <host:port>", "for the coordinator; port 0 takes a free one")
    .option(
      "--advertise <host:port>",
      "what coordinator and peers reach this worker under; port 0 is that of --listen",
    )
    .option("--threads <count>", "of the kernels", whole, cpus().length)
    .option("--memory <bytes>", "what this worker may use", whole)
    .option("--health-listen <host:port>", "/metrics, /livez, /readyz, /startupz")
    .option(
      "--exchange-spin-us <us>",
      "poll so long after a frame instead of sleeping; a bare round trip of 1 KiB takes 18 instead of " +
        "61 us where each thread has a core, and longer where it has not (default: 100 with two " +
        "cores a rank of this machine, else 0)",
      whole,
    )
    .addOption(transport())
    .option(
      "--shm-dir <dir>",
      "where memory is shared, the same for all that share it (default: /dev/shm)",
    )
    .addOption(logLevel("info"))
    .option("--reflection", "grpc.reflection, for tools as grpcurl")
    .option("--end-with-stdin", "end when stdin closes")
    .addHelpText(
      "after",
      `
Examples:
  tessera worker --model models/nvlm-d-tiny --listen 127.0.0.1:4001
  tessera worker --model DIR --listen 0.0.0.0:4001 --advertise 10.0.0.7:4001 \\
      --nats nats://10.0.0.2:4222 --tls-cert server.pem --tls-key server.key --tls-ca ca.pem

Beyond loopback it needs --tls-cert, --tls-key and --tls-ca (${SECURITY_PAGE}).

With --nats the worker takes a free rank of its group, or waits as a spare (${MEMBERSHIP_PAGE}).
`,
    )
    .action(async (flags: WorkerFlags) => {
      const { model: modelDir, memory: memoryBytes, endWithStdin, ...rest } = flags;
      const reflection = flags.reflection === true;
      const options = { ...rest, ...securityOptions(flags), modelDir, memoryBytes, reflection };
      await checkAll([() => workerProblems(options), () => checkModel(modelDir)]);
      const { startWorker } = await import("@tessera/shard-worker");
      const worker = await startWorker(options);
      announce(worker, endWithStdin === true);
    });
}

interface FrontFlags {
  model: string;
  reflection?: boolean;
}

interface CoordinatorFlags extends PlacementFlags, HttpFlags, ServerSecurityFlags, FrontFlags {
  listen: string;
  workers?: string;
  nats?: string;
  group?: string;
  tensorParallel?: number;
  heartbeatMs?: number;
  healthListen?: string;
  endWithStdin?: boolean;
}

/** As the coordinator names them. */
function placementOptions(flags: PlacementFlags) {
  return {
    vision: flags.vision,
    visionWorkers: flags.visionWorkers,
    maxModelLen: flags.maxModelLen,
    cacheMemoryBytes: flags.cacheMemory,
    crossCacheMemoryBytes: flags.crossCacheMemory,
    embeddingMemoryBytes: flags.embeddingMemory,
    encodeBudgetMs: flags.encodeBudgetMs,
    kvType: flags.kv,
    weightType: flags.weights,
    wireType: flags.wire,
    servedModelName: flags.servedModelName,
    chatTemplate: flags.chatTemplate,
    maxBatchedTokens: flags.maxBatchedTokens,
    maxSequences: flags.maxSequences,
    speculate: flags.speculate,
    prefixCache: flags.prefixCache,
    maxRequests: flags.maxRequests ?? MAX_REQUESTS,
    maxQueuedTokens: flags.maxQueuedTokens,
    stepDeadlineMs: flags.stepDeadlineMs,
    resumeGraceMs: flags.resumeGraceMs,
    otlpEndpoint: flags.otlpEndpoint,
  };
}

/** Of a coordinator, however it finds its workers. */
function frontOptions(flags: PlacementFlags & HttpFlags & ServerSecurityFlags & FrontFlags) {
  return {
    modelDir: flags.model,
    ...httpOptions(flags),
    ...placementOptions(flags),
    reflection: flags.reflection === true,
    logLevel: flags.logLevel,
    ...securityOptions(flags),
  };
}

async function workerProblems(options: WorkerOptions): Promise<string[]> {
  const { examineWorkerOptions } = await import("@tessera/shard-worker/options");
  return examineWorkerOptions(options).problems;
}

async function coordinatorProblems(options: CoordinatorOptions): Promise<string[]> {
  const { examineOptions } = await import("@tessera/coordinator/options");
  return examineOptions(options).problems;
}

/** Of the processes that `up` starts, and of the model over them. */
async function checkUp(flags: UpFlags): Promise<void> {
  const { model: modelDir, workers, threads = 1, logLevel: level } = flags;
  const front = frontOptions(flags);
  const { transport: way } = flags;
  const common = { modelDir, threads, logLevel: level, transport: way };
  const worker = { ...securityOptions(flags), ...common };
  const { httpListen } = front;
  let reached = false;
  await checkAll([
    async () => {
      if (httpListen !== undefined) await checkHttp(httpListen);
      reached = true;
      return undefined;
    },
    () =>
      coordinatorProblems({
        ...front,
        // An address with a problem is not one that is missing.
        httpListen: reached ? httpListen : DEFAULT_HTTP,
        listen: `127.0.0.1:${flags.port}`,
        workers: Array.from({ length: workers + (flags.visionWorkers ?? 0) }, () => LOOPBACK),
      }),
    () => workerProblems({ ...worker, listen: LOOPBACK }),
    () => checkCluster(modelDir, workers, flags),
  ]);
}

function addCoordinator(program: Command): void {
  addServerSecurity(addNats(addHttp(addPlacement(program.command("coordinator")))))
    .description("the front: takes requests, schedules, streams answers")
    .requiredOption("--model <dir>", "config.json, safetensors, tokenizer")
    .requiredOption("--listen <host:port>", "for clients")
    .option(
      "--workers <addresses>",
      "host:port,… by rank, those of --vision-workers last; or --nats",
    )
    .option("--tensor-parallel <size>", "ranks that hold the decoder; with --nats", whole)
    .option("--health-listen <host:port>", "/metrics, /livez, /readyz, /startupz")
    .option("--reflection", "grpc.reflection, for tools as grpcurl")
    .option("--end-with-stdin", "end when stdin closes")
    .addHelpText(
      "after",
      `
Examples:
  tessera coordinator --model DIR --listen 127.0.0.1:4000 --workers 127.0.0.1:4001,127.0.0.1:4002
  tessera coordinator --model DIR --listen 0.0.0.0:4000 \\
      --nats nats://10.0.0.2:4222 --tensor-parallel 2 \\
      --keys keys.yaml --tls-cert server.pem --tls-key server.key --tls-ca ca.pem

Beyond loopback it needs --keys, --tls-cert and --tls-key (${SECURITY_PAGE}).
SIGHUP reads the keys again.

With --nats the workers are found by their leases; a spare takes the place of a lost one
(${MEMBERSHIP_PAGE}).
`,
    )
    .action(async (flags: CoordinatorFlags) => {
      const options = {
        ...frontOptions(flags),
        listen: flags.listen,
        healthListen: flags.healthListen,
        workers: flags.workers?.split(","),
        nats: flags.nats,
        group: flags.group,
        tensorParallel: flags.tensorParallel,
        heartbeatMs: flags.heartbeatMs,
      };
      await checkAll([() => coordinatorProblems(options), () => checkModel(flags.model)]);
      const { startCoordinator } = await import("@tessera/coordinator");
      const running = await startCoordinator(options);
      const { reloadKeys } = running;
      if (reloadKeys !== undefined) process.on("SIGHUP", reloadKeys);
      announce(running, flags.endWithStdin === true);
      await running.ready;
      say({ event: "ready" });
    });
}

interface UpFlags extends PlacementFlags, HttpFlags, ServerSecurityFlags, FrontFlags {
  transport?: Transport;
  workers: number;
  threads?: number;
  port: number;
  healthPort?: number;
}

function addUp(program: Command): void {
  addServerSecurity(addHttp(addPlacement(program.command("up")), DEFAULT_HTTP))
    .description("coordinator and workers on this machine")
    .requiredOption("--model <dir>", "config.json, safetensors, tokenizer")
    .option("--workers <count>", "1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .addOption(transport())
    .option("--port <port>", "for clients", port, 4000)
    .option("--health-port <port>", "/metrics and the probes", port)
    .option("--reflection", "grpc.reflection, for tools as grpcurl")
    .addHelpText("after", "\nExample:\n  tessera up --model models/nvlm-d-tiny --workers 2\n")
    .action(async (flags: UpFlags) => {
      await checkUp(flags);
      const { httpListen: http } = httpOptions(flags);
      const { startCluster } = await import("../supervisor.js");
      const { drainOnSignal } = await import("../drain.js");
      const cluster = await startCluster({ ...flags, http, flags, security: flags });
      drainOnSignal(cluster);
      process.stdout.write(`serving on ${cluster.address}\n`);
      const scheme = flags.tlsCert === undefined ? "http" : "https";
      if (cluster.http !== undefined) process.stdout.write(`HTTP on ${scheme}://${cluster.http}\n`);
      if (cluster.health !== undefined)
        process.stdout.write(`metrics on http://${cluster.health}/metrics\n`);
    });
}

export function addServe(program: Command): void {
  addUp(program);
  addWorker(program);
  addCoordinator(program);
}
