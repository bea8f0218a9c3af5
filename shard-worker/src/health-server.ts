/** /metrics, /livez, /readyz, /startupz on a port of their own. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Registry } from "prom-client";

export interface HealthState {
  /** Makes forward progress. */
  readonly live: () => boolean;
  readonly ready: () => boolean;
  readonly started: () => boolean;
  /** Sets gauges that are read, not counted; before each scrape. */
  readonly refresh: () => void;
}

export interface HealthServer {
  address: string;
  close(): Promise<void>;
}

export async function startHealthServer(
  listen: { host: string; port: number },
  registry: Registry,
  state: HealthState,
): Promise<HealthServer> {
  const checks = new Map([
    ["/livez", state.live],
    ["/readyz", state.ready],
    ["/startupz", state.started],
  ]);
  const server: Server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    const check = checks.get(path);
    if (check !== undefined) {
      const good = check();
      response.writeHead(good ? 200 : 503, { "content-type": "text/plain" });
      response.end(good ? "ok\n" : "not ok\n");
    } else if (path === "/metrics") {
      state.refresh();
      void registry.metrics().then((text) => {
        response.writeHead(200, { "content-type": registry.contentType });
        response.end(text);
      });
    } else {
      response.writeHead(404).end("no such page\n");
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(listen.port, listen.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    address: `${listen.host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
