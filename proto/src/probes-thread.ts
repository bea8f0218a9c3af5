/**
 * The probes thread: an HTTP server that asks the main thread about every path. A main thread that is stuck answers
 * nothing, and this thread says 503 for it.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import type { Address } from "./address.js";
import type { FromProbes, ToProbes } from "./probes-messages.js";

/** Of the main thread's answer. */
const ANSWER_DEADLINE_MS = 2000;
/** Asked and not answered; more are refused. */
const MAX_PENDING = 64;
const PLAIN = "text/plain; charset=utf-8";

if (parentPort === null) throw new Error("probes-thread runs in a worker thread only");
const port = parentPort;
const say = (message: FromProbes) => port.postMessage(message);
const pending = new Map<number, { response: ServerResponse; timer: NodeJS.Timeout }>();
let nextId = 0;

function answer(response: ServerResponse, message: Omit<ToProbes, "id">): void {
  response.writeHead(message.status, { "content-type": message.contentType });
  response.end(message.body);
}

function refuse(response: ServerResponse, why: string): void {
  answer(response, { status: 503, contentType: PLAIN, body: `${why}\n` });
}

const server = createServer((request, response) => {
  if (pending.size >= MAX_PENDING)
    return refuse(response, `${pending.size} probes wait, limit ${MAX_PENDING}`);
  const id = nextId++;
  const timer = setTimeout(() => {
    pending.delete(id);
    refuse(response, `the process has not answered for ${ANSWER_DEADLINE_MS} ms`);
  }, ANSWER_DEADLINE_MS);
  pending.set(id, { response, timer });
  const path = (request.url ?? "/").split("?")[0] ?? "/";
  say({ kind: "ask", id, path, accept: request.headers.accept ?? "" });
});

port.on("message", (message: ToProbes) => {
  const waiting = pending.get(message.id);
  if (waiting === undefined) return;
  pending.delete(message.id);
  clearTimeout(waiting.timer);
  answer(waiting.response, message);
});

const { host, port: wanted } = workerData as Address;
server.once("error", (error) => say({ kind: "failed", message: error.message }));
server.listen(wanted, host, () =>
  say({ kind: "listening", port: (server.address() as AddressInfo).port }),
);
