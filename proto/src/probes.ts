/** /metrics, /livez, /readyz, /startupz on a port of their own, and the same liveness in grpc.health.v1. */
import { Worker } from "node:worker_threads";
import { bareHost, type Address } from "./address.js";
import { ServeError } from "./errors.js";
import type { FromProbes, ToProbes } from "./probes-messages.js";

export interface ProbeState {
  /** Makes forward progress. */
  live(): boolean;
  /** Serves. */
  ready(): boolean;
  /** Has served once. */
  started(): boolean;
}

/** Metrics in Prometheus' text format; prom-client's Registry with a refresh before. */
export interface MetricsSource {
  readonly contentType: string;
  text(): Promise<string>;
  /** OpenMetrics, for who accepts it; without it Prometheus' format for all. */
  openMetrics?: { readonly contentType: string; text(): Promise<string> };
}

export interface Probes {
  /** host:port */
  address: string;
  close(): Promise<void>;
}

const PLAIN = "text/plain; charset=utf-8";
const LIVENESS_PERIOD_MS = 1000;
const OPEN_METRICS = /\bapplication\/openmetrics-text\b/i;

async function answer(
  { path, accept }: Pick<Extract<FromProbes, { kind: "ask" }>, "path" | "accept">,
  state: ProbeState,
  metrics: MetricsSource,
): Promise<Omit<ToProbes, "id">> {
  const checks: Record<string, (() => boolean) | undefined> = {
    "/livez": () => state.live(),
    "/readyz": () => state.ready(),
    "/startupz": () => state.started(),
  };
  const check = checks[path];
  if (check !== undefined)
    return check()
      ? { status: 200, contentType: PLAIN, body: "ok\n" }
      : { status: 503, contentType: PLAIN, body: "not ok\n" };
  if (path !== "/metrics") return { status: 404, contentType: PLAIN, body: "no such page\n" };
  const open = OPEN_METRICS.test(accept) ? metrics.openMetrics : undefined;
  const { contentType } = open ?? metrics;
  return { status: 200, contentType, body: await (open ?? metrics).text() };
}

/**
 * Serves from a thread of its own: when this thread is stuck, every page is 503 after 2 s.
 * @throws ServeError CONFIGURATION when the address cannot be had.
 */
export async function startProbes(
  listen: Address,
  state: ProbeState,
  metrics: MetricsSource,
): Promise<Probes> {
  const thread = new Worker(new URL("./probes-thread.js", import.meta.url), {
    workerData: { ...listen, host: bareHost(listen.host) },
  });
  const port = await new Promise<number>((resolve, reject) => {
    thread.on("message", (message: FromProbes) => {
      if (message.kind === "listening") resolve(message.port);
      if (message.kind === "failed")
        reject(new ServeError("CONFIGURATION", `health-listen: ${message.message}`));
      if (message.kind === "ask")
        void answer(message, state, metrics)
          .catch((error: unknown) => ({
            status: 500,
            contentType: PLAIN,
            body: `${ServeError.from(error).message}\n`,
          }))
          .then((said) => thread.postMessage({ id: message.id, ...said } satisfies ToProbes));
    });
  }).catch(async (error: unknown) => {
    await thread.terminate();
    throw error;
  });
  return {
    address: `${listen.host}:${port}`,
    async close() {
      await thread.terminate();
    },
  };
}

/** What grpc-health-check's HealthImplementation is to this package. */
export interface HealthService {
  setStatus(service: string, status: "SERVING" | "NOT_SERVING"): void;
}

/** Keeps grpc.health.v1's `""` at what `live` says, looked at once a second. Returns the end of it. */
export function followLiveness(health: HealthService, live: () => boolean): () => void {
  let said = true;
  const timer = setInterval(() => {
    const now = live();
    if (now !== said) health.setStatus("", now ? "SERVING" : "NOT_SERVING");
    said = now;
  }, LIVENESS_PERIOD_MS);
  timer.unref();
  return () => clearInterval(timer);
}
