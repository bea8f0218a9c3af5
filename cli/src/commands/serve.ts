/** tessera up, worker, coordinator. */
import { once } from "node:events";
import { createServer } from "node:net";
import { cpus } from "node:os";
import type { Command } from "commander";
import { checkCluster } from "./check-cluster.js";
import { followParent, say } from "./parent.js";
import { addPeerTls, addServerSecurity, securityOptions } from "./security-flags.js";
import type { ServerSecurityFlags, TlsFlags } from "./security-flags.js";
import { addPlacement, logLevel, whole, type PlacementFlags } from "./options.js";

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

const MEMBERSHIP_PAGE = "docs/membership.md";
const HTTP_PAGE = "docs/http.md";
const DEFAULT_HTTP = "127.0.0.1:8000";

interface HttpFlags {
  httpBodyLimit?: number;
  corsOrigin?: string;
  dataDir?: string;
}

function addHttp(command: Command): Command {
  return command
    .option("--http-body-limit <bytes>", "of an HTTP request (default: 64 MiB)", whole)
    .option(
      "--data-dir <dir>",
      "where /v1/files and /v1/batches lie (default: none, they are not served)",
    )
    .option(
      "--cors-origin <origins>",
      "whose pages may read HTTP answers, as https://host:port,… or * (default: none)",
    );
}

/** As the coordinator takes them. */
function httpOptions(flags: HttpFlags & { http?: string }) {
  const { http: httpListen, httpBodyLimit, dataDir, corsOrigin } = flags;
  return { httpListen, httpBodyLimit, dataDir, corsOrigins: corsOrigin?.split(",") };
}

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
      const { startWorker } = await import("@tessera/shard-worker");
      const { model: modelDir, memory: memoryBytes, endWithStdin, ...rest } = flags;
      const reflection = flags.reflection === true;
      const worker = await startWorker({
        ...rest,
        ...securityOptions(flags),
        modelDir,
        memoryBytes,
        reflection,
      });
      announce(worker, endWithStdin === true);
    });
}

interface CoordinatorFlags extends PlacementFlags, HttpFlags, ServerSecurityFlags {
  model: string;
  listen: string;
  workers?: string;
  nats?: string;
  group?: string;
  tensorParallel?: number;
  heartbeatMs?: number;
  healthListen?: string;
  http?: string;
  maxRequests: number;
  reflection?: boolean;
  endWithStdin?: boolean;
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
    .option("--http <host:port>", `OpenAI's HTTP routes, ${HTTP_PAGE} (default: none)`)
    .option("--max-requests <count>", "accepted and not ended", whole, 1024)
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
      const { startCoordinator } = await import("@tessera/coordinator");
      const running = await startCoordinator({
        modelDir: flags.model,
        listen: flags.listen,
        healthListen: flags.healthListen,
        ...httpOptions(flags),
        workers: flags.workers?.split(","),
        nats: flags.nats,
        group: flags.group,
        tensorParallel: flags.tensorParallel,
        heartbeatMs: flags.heartbeatMs,
        vision: flags.vision,
        visionWorkers: flags.visionWorkers,
        maxModelLen: flags.maxModelLen,
        cacheMemoryBytes: flags.cacheMemory,
        crossCacheMemoryBytes: flags.crossCacheMemory,
        embeddingMemoryBytes: flags.embeddingMemory,
        encodeBudgetMs: flags.encodeBudgetMs,
        kvType: flags.kv,
        wireType: flags.wire,
        servedModelName: flags.servedModelName,
        chatTemplate: flags.chatTemplate,
        maxBatchedTokens: flags.maxBatchedTokens,
        maxSequences: flags.maxSequences,
        maxRequests: flags.maxRequests,
        stepDeadlineMs: flags.stepDeadlineMs,
        otlpEndpoint: flags.otlpEndpoint,
        reflection: flags.reflection === true,
        logLevel: flags.logLevel,
        ...securityOptions(flags),
      });
      const { reloadKeys } = running;
      if (reloadKeys !== undefined) process.on("SIGHUP", reloadKeys);
      announce(running, flags.endWithStdin === true);
      await running.ready;
      say({ event: "ready" });
    });
}

interface UpFlags extends PlacementFlags, HttpFlags, ServerSecurityFlags {
  model: string;
  workers: number;
  threads?: number;
  port: number;
  healthPort?: number;
  /** False: said not to be. */
  http: string | false;
  reflection?: boolean;
}

/** Before anything is loaded. @throws Error when the address cannot be had */
async function checkHttp(http: string): Promise<void> {
  const at = http.lastIndexOf(":");
  const [host, port] = [http.slice(0, at), Number(http.slice(at + 1))];
  if (at < 1 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new Error(`--http ${http}: is no host:port`);
  const server = createServer();
  try {
    await once(server.listen({ host, port }), "listening");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "is taken by another process" : message;
    const what = http === DEFAULT_HTTP ? `${http}, the default of --http,` : `--http ${http}`;
    throw new Error(`${what} ${why}: give another --http host:port, or --no-http`, { cause });
  } finally {
    server.close();
  }
}

function addUp(program: Command): void {
  addServerSecurity(addHttp(addPlacement(program.command("up"))))
    .description("coordinator and workers on this machine")
    .requiredOption("--model <dir>", "config.json, safetensors, tokenizer")
    .option("--workers <count>", "1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .option("--port <port>", "for clients", whole, 4000)
    .option("--health-port <port>", "/metrics and the probes", whole)
    .option("--http <host:port>", `OpenAI's HTTP routes, ${HTTP_PAGE}`, DEFAULT_HTTP)
    .option("--no-http", "without them")
    .option("--reflection", "grpc.reflection, for tools as grpcurl")
    .addHelpText("after", "\nExample:\n  tessera up --model models/nvlm-d-tiny --workers 2\n")
    .action(async (flags: UpFlags) => {
      const http = flags.http === false ? undefined : flags.http;
      await checkCluster(flags.model, flags.workers, flags);
      if (http !== undefined) await checkHttp(http);
      const { startCluster } = await import("../supervisor.js");
      const { drainOnSignal } = await import("../drain.js");
      const cluster = await startCluster({ ...flags, http, flags, security: flags });
      drainOnSignal(cluster);
      process.stdout.write(`serving on ${cluster.address}\n`);
      if (cluster.http !== undefined) process.stdout.write(`HTTP on http://${cluster.http}\n`);
    });
}

export function addServe(program: Command): void {
  addUp(program);
  addWorker(program);
  addCoordinator(program);
}
