/** Connections that are not read or written to their end. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { RequestListener, Server } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { createListener } from "./listener.js";

const DEADLINE_MS = 20_000;

async function listen(
  t: TestContext,
  handler: RequestListener,
  stalledMs?: number,
): Promise<Server> {
  const server = createListener(handler, undefined, stalledMs);
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return server;
}

/** Keeps its side open, whatever the server does. */
async function dial(t: TestContext, server: Server): Promise<Socket> {
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => undefined);
  t.after(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

test("listener: a client that does not finish its request is told, and its connection closed", async (t) => {
  const server = await listen(t, () => undefined);
  server.headersTimeout = 100;
  server.requestTimeout = 200;
  const refused = async (text: string) => {
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const socket = await dial(t, server);
    const [other] = await accepted;
    const closed = once(other, "close", { signal: AbortSignal.timeout(DEADLINE_MS) });
    let said = "";
    socket.setEncoding("utf8").on("data", (piece: string) => (said += piece));
    socket.write(text);
    return { closed, said: () => said };
  };
  const head = await refused("GET / HTTP/1.1\r\nhost: x\r\n");
  const body = await refused("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
  await Promise.all([head.closed, body.closed]);
  for (const { said } of [head, body]) {
    assert.match(said(), /^HTTP\/1\.1 408 /);
    assert.match(said(), /"code":"bad_request"/);
  }
});

const MANY_BYTES = 32 << 20;
const ENDS: [name: string, handler: RequestListener][] = [
  ["a whole answer", (_, response) => void response.end(Buffer.alloc(MANY_BYTES))],
  [
    "a file",
    (_, response) => {
      const read = function (this: Readable) {
        this.push(Buffer.alloc(1 << 16));
      };
      new Readable({ read }).pipe(response);
    },
  ],
];
for (const [name, handler] of ENDS)
  test(`listener: ${name} that its client does not read is given up, and its connection closed`, async (t) => {
    const server = await listen(t, handler, 200);
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const socket = await dial(t, server);
    const [other] = await accepted;
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    await once(other, "close", { signal: AbortSignal.timeout(DEADLINE_MS) });
    assert.ok(other.bytesWritten > 0);
  });

test("listener: an answer that waits for its next event is not given up, and the connection serves on", async (t) => {
  const stalledMs = 50;
  const handler: RequestListener = (_, response) => {
    response.write("first ");
    setTimeout(() => response.end("last"), 4 * stalledMs);
  };
  const server = await listen(t, handler, stalledMs);
  const socket = await dial(t, server);
  let said = "";
  socket.setEncoding("utf8").on("data", (piece: string) => (said += piece));
  for (let request = 1; request <= 2; request++) {
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    while (said.split("last").length <= request)
      await once(socket, "data", { signal: AbortSignal.timeout(DEADLINE_MS) });
  }
  assert.equal(said.match(/HTTP\/1\.1 200/g)?.length, 2);
});
