/** A coordinator process: the gRPC front, health and metrics around what serves. */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { pino } from "pino";
import { serviceDefinition } from "@tessera/proto";
import { Cluster } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { Inference } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkOptions, parseAddress, type CoordinatorOptions } from "./engine/options.js";
import { Serving } from "./engine/serving.js";
import { clusterService, inferenceService } from "./grpc/services.js";
import { startHealthServer, type HealthServer } from "./health-server.js";

const MAX_MESSAGE_BYTES = 64 << 20;

export interface RunningCoordinator {
  address: string;
  healthAddress: string | undefined;
  /** The first group stands. */
  ready: Promise<void>;
  close(): Promise<void>;
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** @throws ServeError CONFIGURATION, BAD_MODEL; ModelError when placement does not fit. */
export async function startCoordinator(options: CoordinatorOptions): Promise<RunningCoordinator> {
  checkOptions(options);
  const log = pino({ level: options.logLevel, name: "coordinator" }, pino.destination(2));
  const serving = await Serving.open(options, log);
  const server = new Server({ "grpc.max_receive_message_length": MAX_MESSAGE_BYTES });
  const health = new HealthImplementation({
    "": "SERVING",
    "tessera.v1.Inference": "NOT_SERVING",
    "tessera.v1.Cluster": "SERVING",
  });
  serving.onState = (state) =>
    health.setStatus("tessera.v1.Inference", state === "ready" ? "SERVING" : "NOT_SERVING");
  server.addService(serviceDefinition(Inference), inferenceService(serving));
  server.addService(serviceDefinition(Cluster), clusterService(serving));
  health.addToServer(server);
  const { host } = parseAddress(options.listen, "listen");
  const port = await bind(server, options.listen);
  let probes: HealthServer | undefined;
  if (options.healthListen !== undefined)
    probes = await startHealthServer(
      parseAddress(options.healthListen, "health-listen"),
      serving.metrics.registry,
      {
        live: () => serving.live(),
        ready: () => serving.state === "ready",
        started: () => true,
        refresh: () => serving.refreshMetrics(),
      },
    );
  return {
    address: `${host}:${port}`,
    healthAddress: probes?.address,
    ready: serving.keepFormed(),
    async close() {
      await serving.drain(1000);
      await serving.close();
      server.forceShutdown();
      await probes?.close();
    },
  };
}
