/** Flags of the HTTP front. */
import { once } from "node:events";
import { createServer } from "node:net";
import type { Command } from "commander";
import { whole } from "./options.js";

/** Of `tessera up`. */
export const DEFAULT_HTTP = "127.0.0.1:8000";
const PAGE = "docs/http.md";

export interface HttpFlags {
  /** host:port; false: said not to be. */
  http?: string | false;
  httpBodyLimit?: number;
  dataDir?: string;
  /** With commas between. */
  corsOrigin?: string;
}

/** `fallback`: where the front is when nothing is said. */
export function addHttp(command: Command, fallback?: string): Command {
  if (fallback === undefined)
    command.option("--http <host:port>", `OpenAI's HTTP routes, ${PAGE} (default: none)`);
  else
    command
      .option("--http <host:port>", `OpenAI's HTTP routes, ${PAGE}`, fallback)
      .option("--no-http", "without them");
  return command
    .option("--http-body-limit <bytes>", "of an HTTP request (default: 64 MiB)", whole)
    .option(
      "--data-dir <dir>",
      "where /v1/files and /v1/batches lie (default: none, they are not served)",
    )
    .option(
      "--cors-origin <origins>",
      "whose pages may read HTTP answers, as https://host:port,… or * (default: none)",
    );
}

/** As startCoordinator takes them. */
export function httpOptions({ http, httpBodyLimit, dataDir, corsOrigin }: HttpFlags) {
  return {
    httpListen: http === false ? undefined : http,
    httpBodyLimit,
    dataDir,
    corsOrigins: corsOrigin?.split(","),
  };
}

/** Before anything is loaded. @throws Error when the address cannot be had */
export async function checkHttp(http: string): Promise<void> {
  const at = http.lastIndexOf(":");
  const [host, port] = [http.slice(0, at), Number(http.slice(at + 1))];
  if (at < 1 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new Error(`--http ${http}: is no host:port`);
  const server = createServer();
  try {
    await once(server.listen({ host, port }), "listening");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "is taken by another process" : message;
    const what = http === DEFAULT_HTTP ? `${http}, the default of --http,` : `--http ${http}`;
    throw new Error(`${what} ${why}: give another --http host:port, or --no-http`, { cause });
  } finally {
    server.close();
  }
}
