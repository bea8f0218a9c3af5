/** Resumable streams of the SDK over real gRPC servers that answer as each test says. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  AbortResponseSchema,
  EventSchema,
  GenerateResponseSchema,
  Inference,
  ResumeResponseSchema,
  type AbortRequest,
  type AbortResponse,
  type Event,
  type GenerateRequest,
  type ResumeRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { TesseraClient } from "./client.js";
import { TesseraError } from "./error.js";
import { MAX_FRUITLESS_CALLS, Reconnects } from "./reconnects.js";

type Call = ServerWritableStream<unknown, unknown>;
/** Answers one call. */
type Answer = (write: (event: Event) => void, call: Call) => void;

interface Scripted {
  address: string;
  /** What was asked, in order. */
  asked: string[];
}

/** A server whose k-th call of a stream is answered by the k-th answer, further ones by the last. */
async function serve(answers: Answer[]): Promise<Scripted> {
  const asked: string[] = [];
  let calls = 0;
  const answer = (call: Call, wrap: (event: Event) => unknown) =>
    (answers[calls++] ?? answers.at(-1))?.((event) => call.write(wrap(event)), call);
  const server = new Server();
  const { generate, resume, abort } = serviceDefinition(Inference);
  server.addService(
    { generate, resume, abort },
    {
      generate(call: Call) {
        asked.push(`generate ${(call.request as GenerateRequest).requestId}`);
        answer(call, (event) => create(GenerateResponseSchema, { event }));
      },
      resume(call: Call) {
        const { requestId, resumeToken, fromIndex } = call.request as ResumeRequest;
        asked.push(`resume ${requestId} ${resumeToken} ${fromIndex}`);
        answer(call, (event) => create(ResumeResponseSchema, { event }));
      },
      abort({ request }: { request: AbortRequest }, reply: sendUnaryData<AbortResponse>) {
        asked.push(`abort ${request.requestId}`);
        reply(null, create(AbortResponseSchema));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  after(() => server.forceShutdown());
  return { address: `127.0.0.1:${port}`, asked };
}

function eventOf(index: number): Event {
  const i = BigInt(index);
  if (index === 0)
    return create(EventSchema, {
      index: i,
      kind: { case: "started", value: { resumeToken: "key" } },
    });
  if (index === 9) return create(EventSchema, { index: i, kind: { case: "done", value: {} } });
  return create(EventSchema, { index: i, kind: { case: "delta", value: { text: `${index}` } } });
}

const cut = { code: status.UNAVAILABLE, details: "gone" };
const reset = { code: status.INTERNAL, details: "Received RST_STREAM with code 2" };

/** Events of these indices, then an error, or the call's end. */
function says(indices: number[], error?: object): Answer {
  return (write, call) => {
    for (const index of indices) write(eventOf(index));
    if (error === undefined) call.end();
    else setImmediate(() => call.emit("error", error));
  };
}

interface Outcome {
  indices: number[];
  failure: TesseraError | undefined;
}

async function read(addresses: string[], deadlineMs = 30_000): Promise<Outcome> {
  const client = new TesseraClient({ addresses, deadlineMs });
  const indices: number[] = [];
  let failure: TesseraError | undefined;
  try {
    for await (const { index } of client.generate({ resume: true, requestId: "r" }))
      indices.push(Number(index));
  } catch (error) {
    assert.ok(error instanceof TesseraError);
    failure = error;
  } finally {
    client.close();
  }
  return { indices, failure };
}

const ALL = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

test("resume: what is left is asked for from the next index, with the stream's token, until it is whole", async () => {
  const server = await serve([
    says([0, 1, 2], cut),
    says([], reset),
    says([3], { code: status.CANCELLED, details: "Call cancelled" }),
    says([4, 5, 6, 7, 8, 9]),
  ]);
  assert.deepEqual(await read([server.address]), { indices: ALL, failure: undefined });
  assert.deepEqual(server.asked, [
    "generate r",
    "resume r key 3",
    "resume r key 3",
    "resume r key 4",
  ]);
});

test("resume: before the first event the same request is sent again, also when no server is ready yet", async () => {
  const notReady = new ServeError("NOT_READY", "no group", { retryDelayMs: 5 }).toStatus();
  const server = await serve([says([], cut), says([], notReady), says([], reset), says(ALL)]);
  assert.deepEqual((await read([server.address])).indices, ALL);
  assert.deepEqual(server.asked, Array<string>(4).fill("generate r"));
});

test("resume: behind the last event the stream is whole, whatever becomes of the call", async () => {
  const server = await serve([says(ALL, cut)]);
  assert.deepEqual(await read([server.address]), { indices: ALL, failure: undefined });
  assert.deepEqual(server.asked, ["generate r"]);
});

const broken: [string, Answer[], number[], RegExp][] = [
  ["a gap", [says([0, 1, 3], cut)], [0, 1], /event 3 of the stream came where 2 was due/],
  ["a repeat", [says([0, 1], cut), says([1, 2])], [0, 1], /event 1 .* where 2 was due/],
  ["a gap between calls", [says([0, 1], cut), says([3])], [0, 1], /event 3 .* where 2 was due/],
  ["a first event that is not 0", [says([1])], [], /event 1 .* where 0 was due/],
  ["an end before the last event", [says([0, 1, 2])], [0, 1, 2], /ended where event 3 was due/],
];
for (const [name, answers, indices, message] of broken)
  test(`resume: ${name} is OUT_OF_ORDER, and the request is ended`, async () => {
    const server = await serve(answers);
    const outcome = await read([server.address]);
    assert.deepEqual(outcome.indices, indices);
    assert.equal(outcome.failure?.code, "OUT_OF_ORDER");
    assert.match(outcome.failure.message, message);
    assert.equal(server.asked.at(-1), "abort r");
  });

const final: [string, object, string][] = [
  ["a lost rank", new ServeError("RANK_LOST", "rank 1").toStatus(), "RANK_LOST"],
  ["a slow reader", new ServeError("SLOW_READER", "unread").toStatus(), "SLOW_READER"],
  ["the server's deadline", new ServeError("DEADLINE", "late").toStatus(), "DEADLINE"],
  ["a fault of the server", new ServeError("INTERNAL", "RST_STREAM").toStatus(), "INTERNAL"],
  [
    "a stream that is gone",
    new ServeError("REQUEST_NOT_FOUND", "no").toStatus(),
    "REQUEST_NOT_FOUND",
  ],
  ["a message that cannot be read", { code: status.INTERNAL, details: "parse" }, "TRANSPORT"],
];
for (const [name, error, code] of final)
  test(`resume: ${name} is told as it is, and nothing is asked again`, async () => {
    const server = await serve([says([0, 1], error)]);
    const { indices, failure } = await read([server.address]);
    assert.deepEqual([indices, failure?.code], [[0, 1], code]);
    assert.deepEqual(server.asked, ["generate r"]);
  });

test("resume: a server that gives no token cannot be asked again", async () => {
  const bare = create(EventSchema, { kind: { case: "started", value: {} } });
  const server = await serve([
    (write, call) => {
      write(bare);
      setImmediate(() => call.emit("error", cut));
    },
  ]);
  const { failure } = await read([server.address]);
  assert.equal(failure?.message, "gone");
  assert.deepEqual(server.asked, ["generate r"]);
});

test("resume: the first try goes to the same address, later ones to the others, which may not know the stream", async () => {
  const unknown = new ServeError("REQUEST_NOT_FOUND", "no stream").toStatus();
  const strange = await serve([says([], unknown)]);
  const server = await serve([says([0, 1], cut), says([], cut), says([2, 3, 4, 5, 6, 7, 8, 9])]);
  const { indices } = await read([server.address, strange.address]);
  assert.deepEqual(indices, ALL);
  assert.deepEqual(server.asked, ["generate r", "resume r key 2", "resume r key 2"]);
  assert.deepEqual(strange.asked, ["resume r key 2"]);
});

test("resume: REQUEST_NOT_FOUND at every address is the end", async () => {
  const unknown = new ServeError("REQUEST_NOT_FOUND", "no stream").toStatus();
  const strange = await serve([says([], unknown)]);
  const server = await serve([says([0, 1], cut), says([], unknown)]);
  const { failure } = await read([server.address, strange.address]);
  assert.equal(failure?.code, "REQUEST_NOT_FOUND");
  assert.deepEqual([server.asked.length, strange.asked.length], [2, 1]);
});

test("resume: a server that stays away is asked again while there is time, then its failure is told", async () => {
  const server = await serve([says([0], cut), says([], cut)]);
  // Asked at 0, 0, 100, 300, 700 and 1500 ms; for the rest of 12 there is no time.
  const { indices, failure } = await read([server.address], 3000);
  assert.deepEqual([indices, failure?.message], [[0], "gone"]);
  assert.ok(server.asked.length > 3 && server.asked.length < 10, `${server.asked.length}`);
});

test("resume: calls that bring nothing have a bound and wait ever longer; an event makes them new", () => {
  const options = { firstAddress: 1, addressCount: 3, deadlineMs: Infinity };
  const reconnects = new Reconnects(options);
  const gone = TesseraError.from(Object.assign(new Error("gone"), cut));
  assert.ok(gone.cut);
  const state = { started: true, resumable: true };
  const waits: number[] = [];
  const addresses: number[] = [];
  const tryAll = () => {
    for (;;) {
      waits.push(reconnects.decide(gone, state));
      addresses.push(reconnects.address);
    }
  };
  assert.throws(tryAll, gone);
  assert.deepEqual(waits, [0, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000, 2000]);
  assert.equal(waits.length, MAX_FRUITLESS_CALLS - 1);
  assert.deepEqual(addresses.slice(0, 5), [1, 2, 0, 1, 2]);
  reconnects.progressed();
  assert.equal(reconnects.decide(gone, state), 0);
});

test("resume: an id is made where there is none, and goes with the Abort of a reader that leaves", async () => {
  const server = await serve([says([0, 1, 2], cut), () => undefined]);
  const client = new TesseraClient({ addresses: [server.address], deadlineMs: 10_000 });
  for await (const { index } of client.generate({ resume: true })) if (index === 2n) break;
  client.close();
  const [first = "", last = ""] = server.asked;
  assert.match(first, /^generate [A-Za-z0-9._-]{8,64}$/);
  assert.equal(last, first.replace("generate", "abort"));
});
