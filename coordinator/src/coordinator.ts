/** A coordinator process: the gRPC front, health and metrics around what serves. */
import { Server, type ServerCredentials } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, service as healthService } from "grpc-health-check";
import { pino, type Logger } from "pino";
import {
  followLiveness,
  frontCredentials,
  parseAddress,
  type Probes,
  reflectedPackage,
  serviceDefinition,
  startProbes,
} from "@tessera/proto";
import { Cluster } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { Inference } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { checkOptions, type CheckedOptions, type CoordinatorOptions } from "./engine/options.js";
import { Serving } from "./engine/serving.js";
import { clusterService } from "./grpc/cluster-service.js";
import { inferenceService } from "./grpc/inference-service.js";
import { openKept, type Kept } from "./http/kept.js";
import { MAX_BODY_BYTES, startHttp, type RunningHttp } from "./http/server.js";
import { PROMETHEUS_TEXT, prometheusText } from "./metrics/exposition.js";
import type { Front } from "./stream/front.js";
import { STREAM_LIMITS, Streams } from "./stream/streams.js";

const MAX_MESSAGE_BYTES = 64 << 20;
const FLUSH_MS = 2000;

export interface RunningCoordinator {
  address: string;
  healthAddress: string | undefined;
  httpAddress: string | undefined;
  /** The first group stands. */
  ready: Promise<void>;
  /** Takes nothing new; resolves when what runs has ended, or was ended after `limitMs`. */
  drain(limitMs: number): Promise<void>;
  /** Reads the file of keys again and logs how it went; absent where there is none. */
  reloadKeys: (() => void) | undefined;
  close(): Promise<void>;
}

function bind(server: Server, address: string, security: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, security, (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** Lets streams bring out their last events; what is open after that, as a health watch, is cut. */
async function shutDown(server: Server): Promise<void> {
  const timer = setTimeout(() => server.forceShutdown(), FLUSH_MS);
  await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  clearTimeout(timer);
}

/** Of the services users call, from their generated descriptors. */
function reflection(): ReflectionService {
  const health = healthService["Check"]?.requestType;
  const packages = reflectedPackage([Inference, Cluster]);
  return new ReflectionService(health === undefined ? packages : { ...packages, health });
}

async function probesOf(
  options: CoordinatorOptions,
  { serving, streams }: Pick<Front, "serving" | "streams">,
): Promise<Probes | undefined> {
  if (options.healthListen === undefined) return undefined;
  const { metrics } = serving;
  const openMetrics = {
    contentType: metrics.registry.contentType,
    text() {
      serving.refreshMetrics();
      metrics.keptStreams.set(streams.keptCount);
      return metrics.registry.metrics();
    },
  };
  const state = {
    live: () => serving.live(),
    ready: () => serving.state === "ready",
    started: () => serving.started,
  };
  return startProbes(parseAddress(options.healthListen, "health-listen"), state, {
    contentType: PROMETHEUS_TEXT,
    text: async () => prometheusText(await openMetrics.text()),
    openMetrics,
  });
}

interface HttpOf {
  running: RunningHttp;
  kept: Kept;
}

async function httpOf(
  front: Front,
  options: CheckedOptions,
  log: Logger,
): Promise<HttpOf | undefined> {
  const { httpListen: listen, httpBodyLimit: bodyLimit, corsOrigins, security } = options;
  if (listen === undefined) return undefined;
  const { dataDir, maxRequests } = options;
  const maxLineBytes = bodyLimit ?? MAX_BODY_BYTES;
  const kept = await openKept(front, { dataDir, maxRequests, maxLineBytes, log });
  const { routes } = kept;
  try {
    const tls = security.front;
    const running = await startHttp(front, { listen, bodyLimit, corsOrigins, tls, routes });
    return { running, kept };
  } catch (error) {
    await kept.stop();
    await kept.close();
    throw error;
  }
}

/** @throws ServeError CONFIGURATION, BAD_MODEL; ModelError when placement does not fit. */
export async function startCoordinator(options: CoordinatorOptions): Promise<RunningCoordinator> {
  const checked = checkOptions(options);
  const { security } = checked;
  const log = pino({ level: options.logLevel, name: "coordinator" }, pino.destination(2));
  const serving = await Serving.open(checked, log);
  const { resumeGraceMs: graceMs = STREAM_LIMITS.graceMs } = options;
  const streams = new Streams(serving, { ...STREAM_LIMITS, graceMs });
  const front = { serving, streams, access: security.access };
  const server = new Server({ "grpc.max_receive_message_length": MAX_MESSAGE_BYTES });
  const health = new HealthImplementation({
    "": "SERVING",
    "tessera.v1.Inference": "NOT_SERVING",
    "tessera.v1.Cluster": "SERVING",
  });
  serving.onState = (state) =>
    health.setStatus("tessera.v1.Inference", state === "ready" ? "SERVING" : "NOT_SERVING");
  server.addService(serviceDefinition(Inference), inferenceService(front));
  server.addService(serviceDefinition(Cluster), clusterService(front));
  health.addToServer(server);
  if (options.reflection) reflection().addToServer(server);
  const { host } = parseAddress(options.listen, "listen");
  const unfollow = followLiveness(health, () => serving.live());
  let probes: Probes | undefined;
  let http: HttpOf | undefined;
  const close = async () => {
    await http?.kept.stop();
    await serving.drain(1000);
    streams.close();
    await serving.close();
    unfollow();
    await Promise.all([shutDown(server), http?.running.close()]);
    await http?.kept.close();
    await probes?.close();
  };
  try {
    const port = await bind(server, options.listen, frontCredentials(security.front));
    probes = await probesOf(options, front);
    http = await httpOf(front, checked, log);
    const { reloadKeys } = security;
    return {
      address: `${host}:${port}`,
      healthAddress: probes?.address,
      httpAddress: http?.running.address,
      ready: serving.keepFormed(),
      async drain(limitMs) {
        await serving.drain(limitMs);
      },
      reloadKeys: reloadKeys && (() => reloadKeys(log)),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
