/** A worker process: Shard, health and metrics around one rank. */
import { randomUUID } from "node:crypto";
import { totalmem } from "node:os";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { pino, type Logger } from "pino";
import { serviceDefinition } from "@tessera/proto";
import { Shard } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { SHARD_CHANNEL } from "./channel.js";
import { startHealthServer, type HealthServer } from "./health-server.js";
import type { LeaseKeeper } from "./lease-keeper.js";
import { WorkerMetrics } from "./metrics.js";
import {
  checkWorkerOptions,
  type Address,
  type CheckedWorkerOptions,
  type WorkerOptions,
} from "./options.js";
import { BUILD, RankState } from "./rank.js";
import { shardService } from "./shard-service.js";

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

async function startProbes(
  listen: Address | undefined,
  metrics: WorkerMetrics,
  state: RankState,
): Promise<HealthServer | undefined> {
  if (listen === undefined) return undefined;
  return startHealthServer(listen, metrics.registry, {
    live: () => true,
    ready: () => state.ready,
    started: () => true,
    refresh() {
      const stats = state.stats();
      metrics.sequences.set(stats.sequences);
      metrics.embeddings.set(stats.embeddings);
      metrics.resident.set(process.memoryUsage.rss());
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
  const { listen, advertise, healthListen, log, idleBytes, workerId, keeper } = parts;
  const metrics = new WorkerMetrics();
  const state = await RankState.open(
    options.modelDir,
    options.threads,
    listen.host,
    metrics,
    (rank, why) => log.warn({ rank, why }, "peer lost"),
  );
  state.exchangeSpinUs = options.exchangeSpinUs;
  const health = new HealthImplementation({ "": "SERVING", "tessera.shard.v1.Shard": "SERVING" });
  const server = new Server(SHARD_CHANNEL);
  const context = {
    state,
    metrics,
    workerId,
    threads: options.threads,
    memoryBytes: options.memoryBytes ?? totalmem(),
    idleBytes,
    exchangeAddress: `${advertise.host}:${state.exchange.port}`,
    onProgress: () => undefined,
  };
  server.addService(serviceDefinition(Shard), shardService(context));
  health.addToServer(server);
  const port = await bind(server, options.listen);
  const probes = await startProbes(healthListen, metrics, state);
  const address = `${listen.host}:${port}`;
  log.info({ address }, "worker listens");
  keeper?.start({
    address: `${advertise.host}:${options.advertise === undefined ? port : advertise.port || port}`,
    modelHash: state.modelHash,
    build: BUILD,
    rank: () => state,
  });
  return {
    address,
    healthAddress: probes?.address,
    async close() {
      await keeper?.close();
      server.forceShutdown();
      await probes?.close();
      await state.close();
    },
  };
}
