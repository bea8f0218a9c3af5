/** Tracing towards collectors that are not there, or do not answer. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import type { SpanFate } from "./counted-export.js";
import { openTracing } from "./open.js";
import { NO_TRACING, type Tracing } from "./trace.js";

function counted() {
  const fates: Record<SpanFate, number> = { exported: 0, failed: 0, dropped: 0 };
  const open = (endpoint: string | undefined) =>
    openTracing({
      endpoint,
      service: { name: "tessera", version: "0" },
      model: "m",
      count: (fate, count) => (fates[fate] += count),
    });
  return { fates, open };
}

/** Ends of at most 2 s, where one export may take 5 s; a slow machine has its share between. */
const CLOSED_MS = 4500;

function trace(tracing: Tracing, count: number): void {
  for (let i = 0; i < count; i++) {
    const request = tracing.request({}, 1);
    request.phase("queue", { startMs: 1, endMs: 2 });
    request.end({ endMs: 3, requestId: `r-${i}` });
  }
}

/** Listens, and answers nothing. */
async function silent() {
  const sockets: Socket[] = [];
  const server = createServer((socket) => sockets.push(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { endpoint: `http://127.0.0.1:${port}`, close };
}

test("tracing: without an endpoint there is none", async () => {
  assert.equal(await counted().open(undefined), NO_TRACING);
});

test("tracing: a collector that refuses: nothing is thrown, its spans are counted as failed", async () => {
  const server = createHttpServer((_, response) => response.writeHead(400).end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const { fates, open } = counted();
  const tracing = await open(`http://127.0.0.1:${port}/`);
  trace(tracing, 10);
  await tracing.close();
  assert.deepEqual(fates, { exported: 0, failed: 20, dropped: 0 });
  server.close();
  server.closeAllConnections();
});

test("tracing: a collector that is not there: the end waits 2 s at most, and later spans are nobody's", async () => {
  const gone = await silent();
  gone.close();
  const { fates, open } = counted();
  const tracing = await open(gone.endpoint);
  trace(tracing, 10);
  const start = performance.now();
  await tracing.close();
  assert.ok(performance.now() - start < CLOSED_MS);
  trace(tracing, 10);
  assert.deepEqual([fates.exported, fates.dropped], [0, 0]);
});

test("tracing: a collector that does not answer: the queue has its bound, what is beyond is counted", async () => {
  const collector = await silent();
  const { fates, open } = counted();
  const tracing = await open(collector.endpoint);
  trace(tracing, 5000);
  assert.deepEqual(fates, { exported: 0, failed: 0, dropped: 10_000 - 4096 });
  const start = performance.now();
  await tracing.close();
  assert.ok(performance.now() - start < CLOSED_MS);
  collector.close();
});

test("tracing: damaged headers of a caller give a trace of its own", async () => {
  const collector = await silent();
  const tracing = await counted().open(collector.endpoint);
  const traceOf = (traceparent: string) => tracing.request({ traceparent }, 1).traceId;
  const id = "4bf92f3577b34da6a3ce929d0e0e4736";
  assert.equal(traceOf(`00-${id}-00f067aa0ba902b7-01`), id);
  for (const bad of ["", "x", `00-${id}-0000000000000000-01`, `ff-${id}-00f067aa0ba902b7-01`])
    assert.match(traceOf(bad) ?? "", new RegExp(`^(?!${id})[0-9a-f]{32}$`));
  await tracing.close();
  collector.close();
});
