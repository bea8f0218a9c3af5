/** The front around what serves: keys, limits, methods, origins, and what is no HTTP. No worker is needed for it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { FastifyInstance } from "fastify";
import { pino } from "pino";
import { ServeError } from "@tessera/proto";
import type { Access } from "../access/access.js";
import { ANYONE } from "../access/caller.js";
import { checkOptions } from "../engine/options.js";
import { Serving } from "../engine/serving.js";
import { Streams } from "../stream/streams.js";
import { HTTP_ERRORS } from "./errors.js";
import { startHttp, type HttpOptions, type RunningHttp } from "./server.js";

/** Knows one key. */
const access: Access = {
  authenticate(authorization) {
    if (authorization === "Bearer right") return ANYONE;
    throw ServeError.field("authorization", "the key is not known", "UNAUTHENTICATED");
  },
};

const options = checkOptions({
  modelDir: fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
  listen: "127.0.0.1:0",
  workers: ["127.0.0.1:1"],
  kvType: "f32",
  wireType: "f32",
  chatTemplate: "nvlm",
  maxRequests: 4,
  stepDeadlineMs: 1000,
  reflection: false,
  logLevel: "silent",
});
/** No group is formed: requests are refused as not ready. */
const serving = await Serving.open(options, pino({ level: "silent" }));
after(() => serving.close());
const front = { serving, streams: new Streams(serving), access };

async function start(more: Partial<HttpOptions> = {}): Promise<RunningHttp> {
  const http = await startHttp(front, { listen: "127.0.0.1:0", ...more });
  after(() => http.close());
  return http;
}

const noIpv6 =
  Object.values(networkInterfaces())
    .flat()
    .some((one) => one?.address === "::1") === false && "this machine has no ::1";

const described: { url: string; method: string }[] = [];
const { address } = await start({
  bodyLimit: 1000,
  corsOrigins: ["https://good.example"],
  routes: [
    (app: FastifyInstance) =>
      void app.addHook("onRoute", ({ url, method }) => {
        for (const one of [method].flat()) described.push({ url, method: one });
      }),
  ],
});

const KEY = { authorization: "Bearer right" };
const call = (method: string, path: string, headers: Record<string, string> = {}, body?: string) =>
  fetch(`http://${address}${path}`, {
    method,
    headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
    signal: AbortSignal.timeout(10_000),
    ...(body === undefined ? {} : { body }),
  });

async function errorOf(response: Response): Promise<Record<string, unknown>> {
  return ((await response.json()) as { error: Record<string, unknown> }).error;
}

test("http: every code of ours has a status, refusals below 500 and failures above", () => {
  for (const [code, { status, type }] of Object.entries(HTTP_ERRORS)) {
    assert.ok(status >= 400 && status < 600, code);
    assert.equal(type === "server_error", status >= 500, code);
  }
});

test("http: without its key a call is told invalid_api_key, before its body is read", async () => {
  for (const [method, path] of [
    ["POST", "/v1/chat/completions"],
    ["POST", "/v1/completions"],
    ["GET", "/v1/models"],
    ["GET", "/v1/streams/x"],
    ["DELETE", "/v1/streams/x"],
    ["POST", "/tokenize"],
    ["GET", "/nothing"],
  ] as const) {
    const body = method === "POST" ? "no json" : undefined;
    for (const headers of [{}, { authorization: "Bearer wrong" }]) {
      const response = await call(method, path, headers, body);
      assert.equal(response.status, 401, path);
      assert.equal(response.headers.get("www-authenticate"), "Bearer");
      assert.equal((await errorOf(response))["code"], "invalid_api_key");
    }
  }
  assert.equal((await call("GET", "/v1/models", KEY)).status, 200);
});

test("http: health, version and the document ask for no key; not ready is 503 with a time", async () => {
  assert.equal((await call("GET", "/version")).status, 200);
  assert.equal((await call("GET", "/openapi.json")).status, 200);
  const health = await call("GET", "/health");
  assert.equal(health.status, 503);
  assert.equal((await errorOf(health))["code"], "not_ready");
  const body = JSON.stringify({ messages: [{ role: "user", content: "a" }] });
  const asked = await call("POST", "/v1/chat/completions", KEY, body);
  assert.equal(asked.status, 503);
  assert.equal(asked.headers.get("retry-after"), "1");
  assert.equal(asked.headers.get("retry-after-ms"), "1000");
  assert.equal((await errorOf(asked))["type"], "server_error");
});

test("http: the document has every route of the server, and the server every one of it", async () => {
  const { paths } = (await (await call("GET", "/openapi.json")).json()) as {
    paths: Record<string, Record<string, object>>;
  };
  const served = described
    .filter(({ method }) => method !== "HEAD" && method !== "OPTIONS")
    .map(({ url, method }) => `${method} ${url.replaceAll(/:(\w+)/g, "{$1}")}`);
  const said = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  assert.ok(served.includes("POST /v1/chat/completions"));
  assert.deepEqual(said.sort(), served.sort());
});

/** What comes back for bytes as they are, until the connection ends. */
async function raw(bytes: string): Promise<string> {
  const [host = "", port] = address.split(":");
  const socket = connect(Number(port), host);
  let said = "";
  socket.setEncoding("utf8").on("data", (text: string) => (said += text));
  socket.end(bytes);
  await once(socket, "close");
  return said;
}

test("http: a body that is said or found to be too large is 413, and not read", async () => {
  const response = await call("POST", "/v1/completions", KEY, "x".repeat(1001));
  assert.equal(response.status, 413);
  const { code, message } = await errorOf(response);
  assert.equal(code, "request_too_large");
  assert.equal(message, "body: has more than 1000 bytes");
  const chunked = await raw(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\n` +
      "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" +
      `5dc\r\n${"x".repeat(1500)}\r\n0\r\n\r\n`,
  );
  assert.match(chunked, /^HTTP\/1\.1 413 /);
});

test("http: another method is 405 with those that there are, another path 404", async () => {
  const wrong = await call("PUT", "/v1/streams/abc", KEY);
  assert.equal(wrong.status, 405);
  assert.equal(wrong.headers.get("allow"), "DELETE, GET");
  const { message } = await errorOf(wrong);
  assert.equal(message, "PUT /v1/streams/abc: must be DELETE or GET");
  const nothing = await call("GET", "/v1/nothing?a=1", KEY);
  assert.equal(nothing.status, 404);
  const error = await errorOf(nothing);
  assert.equal(error["code"], "unknown_url");
  assert.equal(error["message"], "GET /v1/nothing: no such path");
  assert.equal((await call("HEAD", "/version")).status, 200);
});

test("http: a path that is none is answered in the same shape, with an id", async () => {
  for (const [path, status] of [
    ["/v1/models/%zz", 400],
    [`/v1/streams/${"x".repeat(600)}`, 404],
  ] as const) {
    const answer = await call("GET", path, { ...KEY, "x-request-id": "mine" });
    assert.equal(answer.status, status, path);
    assert.equal(answer.headers.get("x-request-id"), "mine");
    assert.equal((await errorOf(answer))["param"], "path");
  }
});

test("http: an id that no header can carry is refused as any other", async () => {
  const messages = [{ role: "user", content: "a" }];
  for (const request_id of ["a\nb", "名"])
    for (const more of [{}, { stream: true, resume: true }])
      for (const [path, body] of [
        ["/v1/chat/completions", { messages }],
        ["/v1/completions", { prompt: "a" }],
      ] as const) {
        const text = JSON.stringify({ ...body, ...more, request_id });
        const answer = await call("POST", path, KEY, text);
        assert.equal(answer.status, 503, "asked for readiness first");
        assert.match(answer.headers.get("x-request-id") ?? "", /^req-/);
        assert.equal((await errorOf(answer))["code"], "not_ready");
      }
  const place = { ...KEY, "last-event-id": "token.c1.0:1" };
  const answer = await call("GET", "/v1/streams/%0A", place);
  assert.equal(answer.status, 404);
  assert.equal((await errorOf(answer))["code"], "not_found");
});

test("http: an IPv6 address is written in brackets", { skip: noIpv6 }, async () => {
  const { address: six } = await start({ listen: "[::1]:0" });
  assert.match(six, /^\[::1\]:\d+$/);
  assert.equal((await fetch(`http://${six}/version`)).status, 200);
});

test("http: pages of the origins that are named may read answers, others not", async () => {
  const ask = { "access-control-request-method": "POST", origin: "https://good.example" };
  const allowed = await call("OPTIONS", "/v1/chat/completions", ask);
  assert.equal(allowed.headers.get("access-control-allow-origin"), "https://good.example");
  const told = await call("GET", "/version", { origin: "https://good.example" });
  const shown = told.headers.get("access-control-expose-headers") ?? "";
  assert.deepEqual(shown.split(", ").sort(), ["retry-after", "retry-after-ms", "x-request-id"]);
  const other = await call("GET", "/version", { origin: "https://bad.example" });
  assert.equal(other.headers.get("access-control-allow-origin"), null);
  const closed = await start();
  const none = await fetch(`http://${closed.address}/version`, {
    headers: { origin: "https://good.example" },
  });
  assert.equal(none.headers.get("access-control-allow-origin"), null);
});

test("http: what is no HTTP, and a head that is too large, are answered in the same shape", async () => {
  for (const [bytes, status] of [
    ["hello\r\n\r\n", /^HTTP\/1\.1 400 /],
    [`GET /version HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(40_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
  ] as const) {
    const answer = await raw(bytes);
    assert.match(answer, status);
    const { error } = JSON.parse(answer.split("\r\n\r\n")[1] ?? "") as { error: object };
    assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
  }
});

test("http: an address that is taken is a clear refusal to start", async () => {
  await assert.rejects(startHttp(front, { listen: address }), {
    code: "CONFIGURATION",
    message: `http: ${address} is taken by another process`,
  });
});
