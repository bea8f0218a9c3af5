/** A worker process: Shard, health and metrics around one rank. */
import { randomUUID } from "node:crypto";
import { totalmem } from "node:os";
import { Server, type ServerCredentials } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, service as healthService } from "grpc-health-check";
import { pino, type Logger } from "pino";
import {
  followLiveness,
  peerServerCredentials,
  type Address,
  type Probes,
  Progress,
  reflectedPackage,
  serviceDefinition,
  startProbes,
} from "@tessera/proto";
import { Shard } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { SHARD_CHANNEL } from "./channel.js";
import type { LeaseKeeper } from "./lease-keeper.js";
import { WorkerMetrics } from "./metrics.js";
import { checkWorkerOptions, type CheckedWorkerOptions, type WorkerOptions } from "./options.js";
import { BUILD, RankState } from "./rank.js";
import { shardService, type ShardContext } from "./shard-service.js";
import { SHARED_DIR } from "./transport.js";

export interface RunningWorker {
  address: string;
  healthAddress: string | undefined;
  close(): Promise<void>;
}

function bind(server: Server, address: string, security: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, security, (error, port) =>
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
  listen: Address | undefined,
  { state, metrics, progress }: ShardContext,
): Promise<Probes | undefined> {
  if (listen === undefined) return undefined;
  const probes = {
    live: () => progress.moving,
    ready: () => state.ready,
    started: () => state.started,
  };
  return startProbes(listen, probes, {
    contentType: metrics.registry.contentType,
    text() {
      const stats = state.stats();
      metrics.sequences.set(stats.sequences);
      metrics.embeddings.set(stats.embeddings);
      metrics.streams.set(stats.streams);
      metrics.resident.set(process.memoryUsage.rss());
      return metrics.registry.metrics();
    },
  });
}

/** @throws ServeError CONFIGURATION, BAD_MODEL */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const checked = checkWorkerOptions(options);
  const log = pino({ level: options.logLevel, name: "worker" }, pino.destination(2));
  const idleBytes = process.memoryUsage.rss();
  const workerId = randomUUID();
  if (checked.nats === undefined)
    return startRank(options, { ...checked, log, idleBytes, workerId, keeper: undefined });
  const keeper = await (
    await import("./lease-keeper.js")
  ).LeaseKeeper.connect({ ...checked.nats, workerId, log });
  try {
    return await startRank(options, { ...checked, log, idleBytes, workerId, keeper });
  } catch (error) {
    await keeper.close();
    throw error;
  }
}

interface RankParts extends CheckedWorkerOptions {
  log: Logger;
  idleBytes: number;
  workerId: string;
  keeper: LeaseKeeper | undefined;
}

async function startRank(options: WorkerOptions, parts: RankParts): Promise<RunningWorker> {
  const { listen, advertise, healthListen, log, idleBytes, workerId, keeper, tls } = parts;
  const metrics = new WorkerMetrics();
  const state = await RankState.open(
    options.modelDir,
    options.threads,
    { host: listen.host, tls },
    metrics,
    (rank, why) => log.warn({ rank, why }, "peer lost"),
  );
  state.exchangeSpinUs = options.exchangeSpinUs;
  state.memoryBytes = options.memoryBytes;
  state.transport = options.transport ?? "auto";
  state.sharedDir = options.shmDir ?? SHARED_DIR;
  state.onTransports = (pairs) => {
    for (const { rank: peer, transport, why } of pairs)
      log.info({ rank: state.rank, peer, transport, ...(why === "" ? {} : { why }) }, "exchange");
  };
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
    workerId,
    threads: options.threads,
    memoryBytes: options.memoryBytes ?? totalmem(),
    idleBytes,
    exchangeAddress: `${advertise.host}:${state.exchange.port}`,
    progress,
  };
  server.addService(serviceDefinition(Shard), shardService(context));
  health.addToServer(server);
  if (options.reflection === true) reflection().addToServer(server);
  let probes: Probes | undefined;
  const close = async () => {
    await keeper?.close();
    unfollow();
    server.forceShutdown();
    await probes?.close();
    await state.close();
  };
  try {
    const port = await bind(server, options.listen, peerServerCredentials(tls));
    probes = await probesOf(healthListen, context);
    const address = `${listen.host}:${port}`;
    log.info({ address }, "worker listens");
    keeper?.start({
      address: `${advertise.host}:${options.advertise === undefined ? port : advertise.port || port}`,
      modelHash: state.modelHash,
      build: BUILD,
      rank: () => state,
    });
    return { address, healthAddress: probes?.address, close };
  } catch (error) {
    await close();
    throw error;
  }
}
