/** An OTLP receiver over HTTP: what a collector is to a process that traces. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

type Value = { stringValue?: string; intValue?: number; arrayValue?: { values: Value[] } };

/** As OTLP's JSON encoding has it. */
export interface CollectedSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: Value }[];
  status: { code: number; message?: string };
}
interface Body {
  resourceSpans: {
    resource: { attributes: { key: string; value: Value }[] };
    scopeSpans: { spans: CollectedSpan[] }[];
  }[];
}

export interface Collector {
  endpoint: string;
  spans: CollectedSpan[];
  /** Bodies as they came. */
  bodies: string[];
  close(): void;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

/** `status`: of its answers. */
export async function collect(status = 200): Promise<Collector> {
  const spans: CollectedSpan[] = [];
  const bodies: string[] = [];
  const take = async (request: IncomingMessage) => {
    assert.deepEqual([request.method, request.url], ["POST", "/v1/traces"]);
    const text = await bodyOf(request);
    bodies.push(text);
    for (const { scopeSpans } of (JSON.parse(text) as Body).resourceSpans)
      spans.push(...scopeSpans.flatMap((scope) => scope.spans));
  };
  const server = createServer((request, response) => {
    void take(request).then(() => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end("{}");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    spans,
    bodies,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A span's attributes: texts, numbers, lists of texts. */
export function attributesOf({ attributes }: CollectedSpan): Record<string, unknown> {
  const plain = ({ stringValue, intValue, arrayValue }: Value): unknown =>
    stringValue ?? intValue ?? arrayValue?.values.map(plain);
  return Object.fromEntries(attributes.map(({ key, value }) => [key, plain(value)]));
}
