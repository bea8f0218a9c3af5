/** Timing of a stream over loopback: the server turns the clock before each piece and waits until it has been read. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";
import { HttpTarget, type HttpOptions } from "./http-target.js";
import { StreamTimer } from "./stream-timer.js";
import { TargetFailure } from "./target.js";
import type { Prompt } from "./workload.js";

type Body = Record<string, unknown>;
type Answer = (response: ServerResponse, request: { path: string; body: Body }) => unknown;

async function readBody(request: IncomingMessage): Promise<Body> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString("utf8");
  return text === "" ? {} : (JSON.parse(text) as Body);
}

interface Served {
  baseUrl: URL;
  requests: { path: string; body: Body; authorization: string | undefined }[];
}

async function serve(answer: Answer, ownedBy = "vllm"): Promise<Served> {
  const requests: Served["requests"] = [];
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? "";
    const body = await readBody(request);
    requests.push({ path, body, authorization: request.headers.authorization });
    if (path === "/v1/models")
      return response.end(JSON.stringify({ data: [{ id: "served", owned_by: ownedBy }] }));
    if (path === "/version") return response.end('{"version":"9.9"}');
    return answer(response, { path, body });
  };
  const server: Server = createServer((request, response) => void handle(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { baseUrl: new URL(`http://127.0.0.1:${port}/v1`), requests };
}

function targetOf(baseUrl: URL, options: Partial<HttpOptions> = {}): HttpTarget {
  const target = new HttpTarget({
    baseUrl,
    apiKey: undefined,
    model: undefined,
    endpoint: "chat",
    kind: "auto",
    extraBody: {},
    temperature: 0,
    tls: undefined,
    requestDeadlineMs: 20_000,
    ...options,
  });
  after(() => target.close());
  return target;
}

const PROMPT: Prompt = {
  index: 0,
  text: "Hello",
  pictures: [],
  inputTokens: 1,
  outputTokens: 4,
  prefix: undefined,
};
const SIGNAL = new AbortController().signal;

function stream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
}

function event(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

function piece(content: string, ids?: number[]): string {
  return event({ choices: [{ delta: { content }, ...(ids ? { token_ids: ids } : {}) }] });
}

const USAGE = event({ choices: [], usage: { prompt_tokens: 11, completion_tokens: 4 } });

/** A clock of the server's that the client reads: each piece has been read when the clock has been. */
class SharedClock {
  private at = 0;
  private read: () => void = () => undefined;
  now = (): number => {
    this.read();
    return this.at;
  };
  /** Writes after `ms` and waits until the client has taken the time. */
  async write(response: ServerResponse, ms: number, text: string): Promise<void> {
    this.at += ms;
    const taken = new Promise<void>((resolve) => (this.read = resolve));
    response.write(text);
    await taken;
  }
}

test("a stream's times are those at which its pieces came, its tokens those of the ids", async () => {
  const clock = new SharedClock();
  const { baseUrl, requests } = await serve(async (response) => {
    stream(response);
    await clock.write(response, 5, event({ choices: [{ delta: { role: "assistant" } }] }));
    await clock.write(response, 25, piece("a", [1]));
    await clock.write(response, 10, piece("", [2]));
    await clock.write(response, 40, piece("bc", [3, 4]));
    await clock.write(response, 7, `${USAGE}data: [DONE]\n\n`);
    response.end();
  });
  const target = targetOf(baseUrl, { apiKey: "secret" });
  const info = await target.check();
  assert.deepEqual([info.kind, info.version, info.model], ["vllm", "9.9", "served"]);
  const timer = new StreamTimer(0, clock.now);
  const usage = await target.run(PROMPT, timer, SIGNAL);
  assert.deepEqual(usage, { promptTokens: 11, completionTokens: 4, cachedTokens: undefined });
  assert.deepEqual(timer.times, {
    ttftMs: 30,
    lastMs: 80,
    gapsMs: [10, 20, 20],
    chunkCount: 3,
    tokenCount: 4,
  });
  const sent = requests.at(-1);
  assert.deepEqual([sent?.path, sent?.authorization], ["/v1/chat/completions", "Bearer secret"]);
  assert.deepEqual(sent?.body, {
    model: "served",
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 4,
    min_tokens: 4,
    ignore_eos: true,
    return_token_ids: true,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("a piece that is cut anywhere, within a character too, is counted once and at its end", async () => {
  const clock = new SharedClock();
  const bytes = Buffer.from(piece("€", [1]) + piece("b", [2]));
  const { baseUrl } = await serve(async (response) => {
    stream(response);
    for (const byte of bytes) await clock.write(response, 1, Buffer.of(byte) as unknown as string);
    response.end("data: [DONE]\n\n");
  });
  const timer = new StreamTimer(0, clock.now);
  await targetOf(baseUrl).run(PROMPT, timer, SIGNAL);
  const first = Buffer.byteLength(piece("€", [1]));
  const { ttftMs, lastMs, tokenCount } = timer.times;
  assert.deepEqual([ttftMs, lastMs, tokenCount], [first, bytes.length, 2]);
});

test("a server of OpenAI's own fields is sent no others", async () => {
  const { baseUrl, requests } = await serve((response) => {
    stream(response);
    response.end(`${piece("a")}${piece("b")}data: [DONE]\n\n`);
  }, "someone");
  const extraBody = { max_tokens: null, max_completion_tokens: 9 };
  const target = targetOf(baseUrl, { extraBody });
  assert.deepEqual((await target.check()).kind, "openai");
  const timer = new StreamTimer(0, () => 0);
  const usage = await target.run(PROMPT, timer, SIGNAL);
  assert.equal(usage.completionTokens, undefined);
  assert.deepEqual([timer.times.chunkCount, timer.times.tokenCount], [2, undefined]);
  const names = Object.keys(requests.at(-1)?.body ?? {}).sort();
  assert.deepEqual(names, [
    "max_completion_tokens",
    "messages",
    "model",
    "stream",
    "stream_options",
    "temperature",
  ]);
});

test("pictures go as data URLs before the text; completions have a prompt", async () => {
  const { baseUrl, requests } = await serve((response) => {
    stream(response);
    response.end(`${piece("a")}data: [DONE]\n\n`);
  });
  const url = "data:image/png;base64,AAAA";
  const picture = { data: new Uint8Array(3), url, width: 1, height: 1 };
  const timer = () => new StreamTimer(0, () => 0);
  await targetOf(baseUrl).run({ ...PROMPT, pictures: [picture] }, timer(), SIGNAL);
  const image = { type: "image_url", image_url: { url } };
  assert.deepEqual(requests.at(-1)?.body["messages"], [
    { role: "user", content: [image, { type: "text", text: "Hello" }] },
  ]);
  await targetOf(baseUrl, { endpoint: "completions" }).run(PROMPT, timer(), SIGNAL);
  const { path, body } = requests.at(-1) ?? {};
  assert.deepEqual([path, body?.["prompt"]], ["/v1/completions", "Hello"]);
});

for (const [what, answer, code, message] of [
  [
    "a broken connection",
    (response: ServerResponse) => {
      stream(response);
      response.write(piece("a", [1]), () => response.destroy());
    },
    /^(UND_ERR_SOCKET|ECONNRESET)$/,
    /./,
  ],
  [
    "a stream without its end",
    (response: ServerResponse) => {
      stream(response);
      response.end(piece("a", [1]));
    },
    /^truncated$/,
    /before the answer/,
  ],
  [
    "an error in the stream",
    (response: ServerResponse) => {
      stream(response);
      response.end(`${piece("a", [1])}${event({ error: { message: "rank lost" } })}`);
    },
    /^stream_error$/,
    /^rank lost$/,
  ],
  [
    "an answer that the server gave up",
    (response: ServerResponse) => {
      stream(response);
      const end = event({ choices: [{ delta: {}, finish_reason: "abort" }] });
      response.end(`${piece("a", [1])}${end}data: [DONE]\n\n`);
    },
    /^finish_abort$/,
    /ended with reason abort/,
  ],
  [
    "an answer that is no stream",
    (response: ServerResponse) => {
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    },
    /^no_stream$/,
    /application\/json/,
  ],
  [
    "a refusal",
    (response: ServerResponse) => {
      const body = JSON.stringify({ error: { message: "the queue is full" } });
      response.writeHead(429, { "retry-after": "2" }).end(body);
    },
    /^http_429$/,
    /queue is full/,
  ],
  [
    "an event of more than 8 Mi characters",
    (response: ServerResponse) => {
      stream(response);
      response.end(`data: ${"a".repeat((8 << 20) + 1)}`);
    },
    /^bad_event$/,
    /more than/,
  ],
] as const)
  test(`${what} fails the request by its own code`, async () => {
    const { baseUrl } = await serve(answer);
    const timer = new StreamTimer(0, () => 0);
    const failure = await targetOf(baseUrl)
      .run(PROMPT, timer, SIGNAL)
      .then(
        () => assert.fail("answered"),
        (error: unknown) => TargetFailure.from(error),
      );
    assert.match(failure.code, code);
    assert.match(failure.message, message);
    assert.equal(failure.refused, failure.code === "http_429");
  });

test("the server's tokens are counted by /tokenize, or by the usage of a short answer", async () => {
  const vllm = await serve((response) => response.end('{"count":17}'));
  const counting = targetOf(vllm.baseUrl);
  await counting.check();
  assert.equal(await counting.countTokens("some text"), 17);
  assert.equal(vllm.requests.at(-1)?.path, "/tokenize");
  const other = await serve(
    (response) => response.end('{"choices":[],"usage":{"prompt_tokens":23}}'),
    "someone",
  );
  const asking = targetOf(other.baseUrl);
  await asking.check();
  assert.equal(await asking.countTokens("some text"), 23);
  assert.equal(other.requests.at(-1)?.body["max_tokens"], 1);
});

/** A server that answers everything so. */
async function refusing(status: number, body: string): Promise<URL> {
  const server = createServer((_, response) => response.writeHead(status).end(body));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`);
}

test("check: nobody there, a key that is wrong and a model that is not served are told", async () => {
  const nobody = targetOf(new URL("http://127.0.0.1:1/v1"));
  await assert.rejects(nobody.check(), /http:\/\/127.0.0.1:1\/v1\/models: .*ECONNREFUSED/);
  const { baseUrl } = await serve(() => undefined);
  const other = targetOf(baseUrl, { model: "other" });
  await assert.rejects(other.check(), /--model other: not served by .*, which has served/);
  const shut = targetOf(await refusing(401, '{"error":{"message":"no such key"}}'));
  await assert.rejects(shut.check(), /no answer to start with: no such key/);
});

test("check: without a list of models the named one is taken; without a name it is told", async () => {
  const baseUrl = await refusing(404, "no such page");
  assert.equal((await targetOf(baseUrl, { model: "other" }).check()).model, "other");
  await assert.rejects(targetOf(baseUrl).check(), /no answer to start with: no such page/);
});
