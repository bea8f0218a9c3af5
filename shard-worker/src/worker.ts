/** A worker process: Shard, health and metrics around one rank. */
import { totalmem } from "node:os";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { pino } from "pino";
import { ServeError, serviceDefinition } from "@tessera/proto";
import { Shard } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { SHARD_CHANNEL } from "./channel.js";
import { startHealthServer, type HealthServer } from "./health-server.js";
import { WorkerMetrics } from "./metrics.js";
import { RankState } from "./rank.js";
import { shardService } from "./shard-service.js";

export interface WorkerOptions {
  modelDir: string;
  /** host:port; port 0 takes a free one. */
  listen: string;
  /** The host peers reach this worker under; default: the host of `listen`. */
  advertise?: string | undefined;
  threads: number;
  /** host:port of /metrics and the probes; absent: none. */
  healthListen?: string | undefined;
  /** What this worker may use; default: the machine's. */
  memoryBytes?: number | undefined;
  /** How long the exchange thread polls after a frame instead of sleeping; default: by the machine's cores. */
  exchangeSpinUs?: number | undefined;
  logLevel: string;
}

export interface RunningWorker {
  address: string;
  healthAddress: string | undefined;
  close(): Promise<void>;
}

export function parseAddress(text: string, field: string): { host: string; port: number } {
  const at = text.lastIndexOf(":");
  const port = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new ServeError("CONFIGURATION", `${field}: ${JSON.stringify(text)} is no host:port`);
  return { host: text.slice(0, at), port };
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const log = pino({ level: options.logLevel, name: "worker" }, pino.destination(2));
  const { host } = parseAddress(options.listen, "listen");
  const advertised =
    options.advertise === undefined ? host : parseAddress(options.advertise, "advertise").host;
  const metrics = new WorkerMetrics();
  const idleBytes = process.memoryUsage.rss();
  const state = await RankState.open(
    options.modelDir,
    options.threads,
    host,
    metrics,
    (rank, why) => log.warn({ rank, why }, "peer lost"),
  );
  state.exchangeSpinUs = options.exchangeSpinUs;
  const health = new HealthImplementation({ "": "SERVING", "tessera.shard.v1.Shard": "SERVING" });
  const server = new Server(SHARD_CHANNEL);
  const context = {
    state,
    metrics,
    threads: options.threads,
    memoryBytes: options.memoryBytes ?? totalmem(),
    idleBytes,
    exchangeAddress: `${advertised}:${state.exchange.port}`,
    onProgress: () => undefined,
  };
  server.addService(serviceDefinition(Shard), shardService(context));
  health.addToServer(server);
  const port = await bind(server, options.listen);
  let probes: HealthServer | undefined;
  if (options.healthListen !== undefined)
    probes = await startHealthServer(
      parseAddress(options.healthListen, "health-listen"),
      metrics.registry,
      {
        live: () => true,
        ready: () => state.ready,
        started: () => true,
        refresh() {
          const stats = state.stats();
          metrics.sequences.set(stats.sequences);
          metrics.embeddings.set(stats.embeddings);
          metrics.resident.set(process.memoryUsage.rss());
        },
      },
    );
  log.info({ address: `${host}:${port}` }, "worker listens");
  return {
    address: `${host}:${port}`,
    healthAddress: probes?.address,
    async close() {
      server.forceShutdown();
      await probes?.close();
      await state.close();
    },
  };
}
