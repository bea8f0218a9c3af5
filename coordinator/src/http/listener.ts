/** The socket's side of the front: limits of connections, heads and times, and the end. */
import {
  createServer,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createSecure } from "node:https";
import type { Duplex } from "node:stream";
import { errorBody } from "./errors.js";

export interface HttpTls {
  cert: Buffer;
  key: Buffer;
  /** Given: clients must have a certificate of this authority. */
  ca?: Buffer | undefined;
}

/** Connections at once; more are closed. */
const MAX_CONNECTIONS = 4096;
const MAX_HEADER_BYTES = 32 << 10;
const MAX_HEADERS = 100;
const HEADERS_DEADLINE_MS = 20_000;
/** Head and body. */
const REQUEST_DEADLINE_MS = 120_000;
/** Longer than a proxy keeps an idle connection, so that it does not write to a closed one. */
const KEEP_ALIVE_MS = 75_000;
const CHECK_MS = 5000;
/** For a client to take a refusal and close its side; the connection is closed then, whatever it does. */
const REFUSED_MS = 2000;

/** Of a whole answer or a file's bytes: without a byte taken by the client so long, the connection is closed. */
const STALLED_MS = 60_000;

/** An answer that waits for its next event is not watched; one whose bytes are all there is. */
function closeStalled(response: ServerResponse, stalledMs: number): void {
  // Without a listener to it, a socket's timeout closes it; the next request on it sets its own.
  const watch = () => void response.socket?.setTimeout(stalledMs);
  response.once("pipe", watch);
  response.once("prefinish", watch);
}

const REFUSALS: Record<string, [status: string, message: string]> = {
  HPE_HEADER_OVERFLOW: [
    "431 Request Header Fields Too Large",
    `headers have more than ${MAX_HEADER_BYTES} bytes`,
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", "the request did not come in time"],
};

/** What is no HTTP, too large a head, or too slow. */
function refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy();
  const known = REFUSALS[error.code ?? ""];
  const [status, message] = known ?? ["400 Bad Request", "the request is no HTTP"];
  const of = { type: "invalid_request_error", code: "bad_request" };
  const body = JSON.stringify(errorBody(message, of));
  const timer = setTimeout(() => socket.destroy(), REFUSED_MS).unref();
  socket.once("close", () => clearTimeout(timer));
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\nconnection: close\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

export function createListener(
  handler: RequestListener,
  tls: HttpTls | undefined,
  stalledMs = STALLED_MS,
): Server {
  const options: ServerOptions = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEADERS_DEADLINE_MS,
    requestTimeout: REQUEST_DEADLINE_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CHECK_MS,
  };
  const asks = tls?.ca !== undefined;
  const server =
    tls === undefined
      ? createServer(options, handler)
      : createSecure(
          {
            ...options,
            ...tls,
            requestCert: asks,
            rejectUnauthorized: asks,
            minVersion: "TLSv1.2",
          },
          handler,
        );
  server.maxConnections = MAX_CONNECTIONS;
  server.maxHeadersCount = MAX_HEADERS;
  server.prependListener("request", (_, response) => closeStalled(response, stalledMs));
  server.on("clientError", refuse);
  return server;
}
