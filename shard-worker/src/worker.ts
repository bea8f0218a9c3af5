/** A worker process: Shard, health and metrics around one rank. */
import { totalmem } from "node:os";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, service as healthService } from "grpc-health-check";
import { pino } from "pino";
import {
  followLiveness,
  parseAddress,
  type Probes,
  Progress,
  reflectedPackage,
  serviceDefinition,
  startProbes,
} from "@tessera/proto";
import { Shard } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { SHARD_CHANNEL } from "./channel.js";
import { WorkerMetrics } from "./metrics.js";
import { RankState } from "./rank.js";
import { shardService, type ShardContext } from "./shard-service.js";

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
  /** grpc.reflection beside the services. */
  reflection: boolean;
  logLevel: string;
}

export interface RunningWorker {
  address: string;
  healthAddress: string | undefined;
  close(): Promise<void>;
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** Of the service coordinators call, from its generated descriptor. */
function reflection(): ReflectionService {
  const health = healthService["Check"]?.requestType;
  const packages = reflectedPackage([Shard]);
  return new ReflectionService(health === undefined ? packages : { ...packages, health });
}

async function probesOf(
  options: WorkerOptions,
  { state, metrics, progress }: ShardContext,
): Promise<Probes | undefined> {
  if (options.healthListen === undefined) return undefined;
  const probes = {
    live: () => progress.moving,
    ready: () => state.ready,
    started: () => state.started,
  };
  return startProbes(parseAddress(options.healthListen, "health-listen"), probes, {
    contentType: metrics.registry.contentType,
    text() {
      const stats = state.stats();
      metrics.sequences.set(stats.sequences);
      metrics.embeddings.set(stats.embeddings);
      metrics.resident.set(process.memoryUsage.rss());
      return metrics.registry.metrics();
    },
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
  const health = new HealthImplementation({
    "": "SERVING",
    "tessera.shard.v1.Shard": "NOT_SERVING",
  });
  state.onReady = (ready) =>
    health.setStatus("tessera.shard.v1.Shard", ready ? "SERVING" : "NOT_SERVING");
  const progress = new Progress();
  const unfollow = followLiveness(health, () => progress.moving);
  const server = new Server(SHARD_CHANNEL);
  const context = {
    state,
    metrics,
    threads: options.threads,
    memoryBytes: options.memoryBytes ?? totalmem(),
    idleBytes,
    exchangeAddress: `${advertised}:${state.exchange.port}`,
    progress,
  };
  server.addService(serviceDefinition(Shard), shardService(context));
  health.addToServer(server);
  if (options.reflection) reflection().addToServer(server);
  let probes: Probes | undefined;
  const close = async () => {
    unfollow();
    server.forceShutdown();
    await probes?.close();
    await state.close();
  };
  try {
    const port = await bind(server, options.listen);
    probes = await probesOf(options, context);
    const address = `${host}:${port}`;
    log.info({ address }, "worker listens");
    return { address, healthAddress: probes?.address, close };
  } catch (error) {
    await close();
    throw error;
  }
}
