/** The SDK's attempts, deadlines and aborts, over real gRPC servers that answer as each test says. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  CountTokensResponseSchema,
  GenerateResponseSchema,
  Inference,
  type CountTokensResponse,
  type GenerateResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { TesseraClient, type ClientOptions, type CallSettings } from "./client.js";
import { TesseraError } from "./error.js";

type Count = (reply: sendUnaryData<CountTokensResponse>) => void;
type Stream = (call: ServerWritableStream<unknown, GenerateResponse>) => void;

type Called = ServerUnaryCall<unknown, CountTokensResponse>;

interface Scripted {
  address: string;
  /** Calls taken. */
  calls: number;
  /** What each call sent as `authorization`. */
  keys: unknown[];
}

/** A server whose k-th call is answered by the k-th script, further ones by the last. */
async function serve(scripts: { count?: Count[]; generate?: Stream[] }): Promise<Scripted> {
  const { count = [], generate = [] } = scripts;
  const scripted: Scripted = { address: "", calls: 0, keys: [] };
  const server = new Server();
  const { countTokens, generate: stream } = serviceDefinition(Inference);
  server.addService(
    { countTokens, generate: stream },
    {
      countTokens: ({ metadata }: Called, reply: sendUnaryData<CountTokensResponse>) => {
        scripted.keys.push(...metadata.get("authorization"));
        (count[scripted.calls++] ?? count.at(-1))?.(reply);
      },
      generate: (call: ServerWritableStream<unknown, GenerateResponse>) => {
        scripted.keys.push(...call.metadata.get("authorization"));
        (generate[scripted.calls++] ?? generate.at(-1))?.(call);
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  after(() => server.forceShutdown());
  scripted.address = `127.0.0.1:${port}`;
  return scripted;
}

function clientOf(addresses: string[], options: Partial<ClientOptions> = {}): TesseraClient {
  const client = new TesseraClient({ addresses, deadlineMs: 10_000, ...options });
  after(() => client.close());
  return client;
}

const good: Count = (reply) => reply(null, create(CountTokensResponseSchema, { promptTokens: 7 }));
const never: Count = () => undefined;
const failing =
  (error: ServeError): Count =>
  (reply) =>
    reply(error.toStatus());
const notReady = new ServeError("NOT_READY", "no group", { retryDelayMs: 5 });
const event = (index: number) =>
  create(GenerateResponseSchema, { event: { index: BigInt(index) } });
const NOBODY = "127.0.0.1:1";

function fails(code: string, message = /./) {
  return (error: unknown) => {
    assert.ok(error instanceof TesseraError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

test("retries: what may help is tried again, 5 times in all, then its own error comes", async () => {
  const second = await serve({ count: [failing(notReady), good] });
  assert.equal((await clientOf([second.address]).countTokens({})).promptTokens, 7);
  assert.equal(second.calls, 2);
  const never = await serve({ count: [failing(notReady)] });
  await assert.rejects(clientOf([never.address]).countTokens({}), fails("NOT_READY", /no group/));
  assert.equal(never.calls, 5);
});

test("maxAttempts: so many in all, over all addresses", async () => {
  const servers = await Promise.all([0, 1, 2].map(() => serve({ count: [failing(notReady)] })));
  const addresses = servers.map(({ address }) => address);
  for (const [maxAttempts, calls] of [
    [1, [1, 0, 0]],
    [2, [2, 1, 0]],
    [4, [4, 2, 1]],
  ] as const) {
    const client = clientOf(addresses, { maxAttempts });
    await assert.rejects(client.countTokens({}), fails("NOT_READY"));
    assert.deepEqual(
      servers.map((server) => server.calls),
      calls,
    );
  }
});

test("apiKey: goes with every call and attempt; without one nothing is sent", async () => {
  const stream: Stream = (call) => {
    call.write(event(0));
    call.end();
  };
  const server = await serve({ count: [failing(notReady), good], generate: [stream] });
  const client = clientOf([server.address], { apiKey: "secret" });
  await client.countTokens({});
  for await (const { index } of client.generate({})) assert.equal(index, 0n);
  await clientOf([server.address]).countTokens({});
  assert.deepEqual(server.keys, Array(3).fill("Bearer secret"));
  assert.equal(server.calls, 4);
});

test("retries: a refusal is not tried again, and names its field", async () => {
  const server = await serve({ count: [failing(ServeError.field("n", "is 0, must be 1…16"))] });
  await assert.rejects(clientOf([server.address]).countTokens({}), (error: unknown) => {
    assert.ok(error instanceof TesseraError);
    assert.deepEqual(error.violations, [{ field: "n", description: "is 0, must be 1…16" }]);
    assert.equal(error.grpcStatus, status.INVALID_ARGUMENT);
    return true;
  });
  assert.equal(server.calls, 1);
});

test("addresses: one that cannot be reached or drains is passed over, whichever comes first", async () => {
  const draining = await serve({ count: [failing(new ServeError("DRAINING", "drains"))] });
  const server = await serve({ count: [good] });
  const client = clientOf([NOBODY, draining.address, server.address]);
  for (let call = 0; call < 3; call++)
    assert.equal((await client.countTokens({})).promptTokens, 7, `from address ${call}`);
  await assert.rejects(clientOf([draining.address]).countTokens({}), fails("DRAINING"));
});

test("addresses: calls are dealt over them", async () => {
  const servers = await Promise.all([serve({ count: [good] }), serve({ count: [good] })]);
  const client = clientOf(servers.map(({ address }) => address));
  for (let call = 0; call < 6; call++) await client.countTokens({});
  assert.deepEqual(
    servers.map(({ calls }) => calls),
    [3, 3],
  );
});

test("ownConnections: an address has as many connections as it is there; without it one", async () => {
  const peers = new Set<string>();
  const server = await serve({
    generate: [
      (call) => {
        peers.add(call.getPeer());
        call.end();
      },
    ],
  });
  const connections = async (options: Partial<ClientOptions>) => {
    peers.clear();
    const client = clientOf(Array<string>(4).fill(server.address), options);
    for (let call = 0; call < 8; call++) await drained(client.generate({}));
    return peers.size;
  };
  assert.equal(await connections({}), 1);
  assert.equal(await connections({ ownConnections: true }), 4);
});

test("an address where nobody listens: TRANSPORT, and the address is said", async () => {
  await assert.rejects(clientOf([NOBODY]).countTokens({}), fails("TRANSPORT", /127\.0\.0\.1:1/));
});

test("generate: tried again before the first event, never after it", async () => {
  const unavailable = notReady.toStatus();
  const fail: Stream = (call) => call.emit("error", unavailable);
  const server = await serve({
    generate: [
      fail,
      (call) => {
        call.write(event(0));
        setImmediate(() => call.emit("error", unavailable));
      },
    ],
  });
  const indices: bigint[] = [];
  const run = async () => {
    for await (const { index } of clientOf([server.address]).generate({})) indices.push(index);
  };
  await assert.rejects(run(), fails("NOT_READY"));
  assert.deepEqual(indices, [0n]);
  assert.equal(server.calls, 2);
});

/** Aborts once the server has the call; `run` gets the signal. */
class Abort {
  private readonly controller = new AbortController();
  /** Scripts of a server. */
  readonly count: Count = () => this.controller.abort();
  readonly generate: Stream = () => this.controller.abort();

  run(call: (settings: CallSettings) => Promise<unknown>): Promise<unknown> {
    return call({ signal: this.controller.signal });
  }
}
/** Less than what a server or a deadline would let a call wait, and far more than an abort takes. */
const AT_ONCE_MS = 50_000;
async function drained(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _event of events);
}

test("signal: before, while running and while waiting to try again, the call rejects with ABORTED", async () => {
  const busy = new ServeError("NOT_READY", "later", { retryDelayMs: 60_000 });
  const [counting, streaming] = [new Abort(), new Abort()];
  const server = await serve({ count: [counting.count] });
  const stream = await serve({ generate: [streaming.generate] });
  const waiting = new AbortController();
  const later = await serve({
    // The answer is told first, and the client has begun to wait when the timer is due.
    count: [
      (reply) => {
        failing(busy)(reply);
        setTimeout(() => waiting.abort(), 100);
      },
    ],
  });
  const clientTo = ({ address }: Scripted) => clientOf([address], { deadlineMs: 100_000 });
  const [client, streamer] = [clientTo(server), clientTo(stream)];
  const start = Date.now();
  const settings = { signal: AbortSignal.abort() };
  await assert.rejects(client.countTokens({}, settings), fails("ABORTED"));
  await assert.rejects(drained(streamer.generate({}, settings)), fails("ABORTED"));
  assert.deepEqual([server.calls, stream.calls], [0, 0]);
  await assert.rejects(
    counting.run((s) => client.countTokens({}, s)),
    fails("ABORTED"),
  );
  await assert.rejects(
    streaming.run((s) => drained(streamer.generate({}, s))),
    fails("ABORTED"),
  );
  const call = clientTo(later).countTokens({}, { signal: waiting.signal });
  await assert.rejects(call, fails("ABORTED"));
  assert.ok(Date.now() - start < AT_ONCE_MS);
  assert.deepEqual([server.calls, stream.calls, later.calls], [1, 1, 1]);
});

test("signal: its reason is the cause, and the server hears of the end", async () => {
  let hear: () => void = () => undefined;
  const heard = new Promise<void>((resolve) => (hear = resolve));
  const controller = new AbortController();
  const reason = new Error("enough");
  const taken: Stream = (call) => {
    call.on("cancelled", hear);
    controller.abort(reason);
  };
  const server = await serve({ generate: [taken] });
  const run = drained(clientOf([server.address]).generate({}, { signal: controller.signal }));
  await assert.rejects(run, (error: unknown) => {
    assert.equal((error as TesseraError).cause, reason);
    return true;
  });
  await heard;
});

test("deadline: over all attempts; DEADLINE while running, the failure itself when no time is left", async () => {
  const silent = await serve({ count: [never] });
  const client = clientOf([silent.address], { deadlineMs: 100 });
  await assert.rejects(client.countTokens({}), fails("DEADLINE"));
  await assert.rejects(client.countTokens({}, { deadlineMs: 50 }), fails("DEADLINE"));
  const later = new ServeError("NOT_READY", "later", { retryDelayMs: 60_000 });
  const server = await serve({ count: [failing(later)] });
  await assert.rejects(clientOf([server.address]).countTokens({}), fails("NOT_READY", /later/));
  assert.equal(server.calls, 1);
});

const wrong: [string, ClientOptions, RegExp][] = [
  ["no address", { addresses: [] }, /addresses: at least one/],
  ["a deadline of 0", { addresses: [NOBODY], deadlineMs: 0 }, /deadlineMs: 0/],
  ["a deadline of NaN", { addresses: [NOBODY], deadlineMs: NaN }, /deadlineMs: NaN/],
  ["half an attempt", { addresses: [NOBODY], maxAttempts: 0.5 }, /maxAttempts: 0.5/],
  ["a key alone", { addresses: [NOBODY], tls: { key: Buffer.from("") } }, /cert and key/],
];
for (const [name, options, message] of wrong)
  test(`options: ${name} is refused`, () => {
    assert.throws(() => new TesseraClient(options), message);
  });

test("a key that no header can carry throws a RangeError that does not say it", () => {
  for (const apiKey of ["", "two words", "secret\n", "schlüssel"])
    assert.throws(
      () => new TesseraClient({ addresses: [NOBODY], apiKey }),
      (error: unknown) => {
        assert.ok(error instanceof RangeError);
        assert.equal(error.message, "apiKey: must be printable ASCII without spaces");
        return true;
      },
    );
});
