/** A coordinator with its HTTP front in this process, and strangers' ways to it. */
import { after } from "node:test";
import OpenAI from "openai";
import { TesseraClient } from "@tessera/client";
import type { CoordinatorOptions, RunningCoordinator } from "@tessera/coordinator";
import { serveInProcess } from "./in-process.js";

const DEADLINE_MS = 60_000;

export interface HttpServed {
  /** http://host:port */
  url: string;
  /** Unmodified, without its own second attempts. */
  openai: OpenAI;
  client: TesseraClient;
  coordinator: RunningCoordinator;
  /** Sequences and blocks that requests hold. */
  held: () => Promise<number>;
  call: (method: string, path: string, options?: CallOptions) => Promise<Answer>;
}

export interface CallOptions {
  /** As JSON; or `text`. */
  body?: unknown;
  text?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Undefined where it is no JSON. */
  json: unknown;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export async function callHttp(
  url: string,
  method: string,
  { body, text, headers = {} }: CallOptions = {},
): Promise<Answer> {
  const sent = text ?? (body === undefined ? undefined : JSON.stringify(body));
  const response = await fetch(url, {
    method,
    headers: sent === undefined ? headers : { "content-type": "application/json", ...headers },
    signal: AbortSignal.timeout(DEADLINE_MS),
    ...(sent === undefined ? {} : { body: sent }),
  });
  const said = await response.text();
  return { status: response.status, headers: response.headers, text: said, json: jsonOf(said) };
}

/** Closed when the test file ends. */
export async function serveHttp(options: Partial<CoordinatorOptions> = {}): Promise<HttpServed> {
  const served = await serveInProcess(1, {
    httpListen: "127.0.0.1:0",
    maxRequests: 64,
    ...options,
  });
  const url = `http://${served.coordinator.httpAddress}`;
  const client = new TesseraClient({
    addresses: [served.coordinator.address],
    deadlineMs: DEADLINE_MS,
  });
  after(async () => {
    client.close();
    await served.close();
  });
  return {
    url,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }),
    client,
    coordinator: served.coordinator,
    async held() {
      const { load } = await client.getCluster();
      if (load === undefined) return NaN;
      return load.runningSequences + load.waitingRequests + load.usedBlocks;
    },
    call: (method, path, of) => callHttp(url + path, method, of),
  };
}
