/** Resumable streams that nobody comes back for, that are asked for by others, or whose request fails. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import { TesseraClient, TesseraError, type GenerateInput } from "@tessera/client";
import { ServeError } from "@tessera/proto";
import type { Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { CutProxy } from "../harness/cut-proxy.js";
import { eventually } from "../harness/eventually.js";
import { serveInProcess } from "../harness/in-process.js";
import { rawResume } from "../harness/raw-call.js";

const GRACE_MS = 1500;
const served = await serveInProcess(1, { maxRequests: 64, resumeGraceMs: GRACE_MS });
const { address } = served.coordinator;
const direct = new TesseraClient({ addresses: [address], deadlineMs: 60_000 });
after(async () => {
  direct.close();
  await served.close();
});

const short: GenerateInput = {
  tokenIds: [65, 66, 67],
  resume: true,
  maxTokens: 8,
  sampling: { temperature: 1, seed: 5n },
  stop: { ignoreEos: true },
};
const endless: GenerateInput = { ...short, maxTokens: 3000, minTokens: 3000 };

async function held(): Promise<number> {
  const { load } = await direct.getCluster();
  assert.ok(load !== undefined);
  return load.runningSequences + load.waitingRequests + load.usedBlocks;
}

function tokenOf({ kind }: Event): string {
  assert.equal(kind.case, "started");
  return kind.value.resumeToken;
}

async function eventsOf(stream: AsyncIterable<Event>): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** A failure as Resume itself says it. */
function says(code: string, message: RegExp) {
  return (error: unknown) => {
    const said = ServeError.fromStatus(error as ServiceError);
    assert.equal(said?.code, code, String(error));
    assert.match(said?.message ?? "", message);
    return true;
  };
}

interface Lost {
  token: string;
  /** When its connection was about to be cut. */
  cutMs: number;
  close: () => Promise<void>;
}

/** A stream that has begun and whose connection is cut for good. */
async function lost(requestId: string): Promise<Lost> {
  const proxy = await CutProxy.open(address);
  const client = new TesseraClient({ addresses: [proxy.address], deadlineMs: 60_000 });
  const stream = client.generate({ ...endless, requestId });
  const first = await stream.next();
  assert.ok(first.done !== true);
  proxy.plan = Array.from({ length: 50 }, () => "refused" as const);
  const cutMs = Date.now();
  proxy.cutAll();
  const close = async () => {
    client.close();
    await proxy.close();
  };
  return { token: tokenOf(first.value), cutMs, close };
}

test("grace: a client that goes away for good leaves nothing behind, and its stream is not found", async () => {
  const { token, cutMs, close } = await lost("gone");
  await eventually("the request is given up", async () => (await held()) === 0);
  assert.ok(Date.now() - cutMs > GRACE_MS / 2, "the request goes on for now");
  const ask = { requestId: "gone", resumeToken: token, fromIndex: 1n };
  await assert.rejects(rawResume(address, ask), says("REQUEST_NOT_FOUND", /"gone" is kept/));
  await close();
});

test("grace: the SDK's reader that comes too late is told REQUEST_NOT_FOUND", async () => {
  const proxy = await CutProxy.open(address);
  after(() => proxy.close());
  const client = new TesseraClient({ addresses: [proxy.address], deadlineMs: 60_000 });
  after(() => client.close());
  const stream = client.generate({ ...endless, requestId: "late" });
  await stream.next();
  proxy.plan = ["refused"];
  proxy.cutAll();
  await eventually("the request is given up", async () => (await held()) === 0);
  await assert.rejects(eventsOf(stream), { code: "REQUEST_NOT_FOUND", retryable: false });
});

test("grace: a reader that comes in time keeps the stream for as long as it reads, and a while longer", async () => {
  const { token, close } = await lost("kept");
  const ask = { requestId: "kept", resumeToken: token, fromIndex: 0n };
  const [one, two] = await Promise.all([rawResume(address, ask), rawResume(address, ask)]);
  assert.equal(one.at(-1)?.kind.case, "done");
  assert.deepEqual(one, two);
  const from = BigInt(one.length - 2);
  assert.deepEqual(await rawResume(address, { ...ask, fromIndex: from }), one.slice(-2));
  assert.deepEqual(await rawResume(address, { ...ask, fromIndex: from + 2n }), []);
  await close();
});

test("ids: the same body is the same stream; another body, or one without resume, is ALREADY_EXISTS", async () => {
  const request = { ...short, requestId: "same" };
  const first = await eventsOf(direct.generate(request));
  assert.deepEqual(await eventsOf(direct.generate(request)), first);
  for (const other of [
    { ...request, maxTokens: 9 },
    { ...request, resume: false },
  ])
    await assert.rejects(eventsOf(direct.generate(other)), {
      code: "REQUEST_EXISTS",
      grpcStatus: 6,
    });
  const running = direct.generate({ ...short, requestId: "plain", maxTokens: 3000, resume: false });
  await running.next();
  await assert.rejects(eventsOf(direct.generate({ ...short, requestId: "plain" })), {
    code: "REQUEST_EXISTS",
  });
  await running.return(undefined);
});

test("ids: metadata in another order is the same body", async () => {
  const request = { ...short, requestId: "order" };
  const first = await eventsOf(direct.generate({ ...request, metadata: { a: "1", b: "2" } }));
  const again = await eventsOf(direct.generate({ ...request, metadata: { b: "2", a: "1" } }));
  assert.deepEqual(again, first);
});

test("tokens: another one, an empty one and an index that is none are refused", async () => {
  const events = await eventsOf(direct.generate({ ...short, requestId: "guarded" }));
  const [first] = events;
  assert.ok(first !== undefined);
  const resumeToken = tokenOf(first);
  const ask = { requestId: "guarded", resumeToken, fromIndex: 0n };
  assert.deepEqual(await rawResume(address, ask), events);
  const unknown = [
    `${resumeToken}x`,
    resumeToken.slice(1),
    "",
    resumeToken.replace(/^./, (c) => (c === "A" ? "B" : "A")),
  ];
  for (const token of unknown)
    await assert.rejects(
      rawResume(address, { ...ask, resumeToken: token }),
      says("REQUEST_NOT_FOUND", /under this token/),
    );
  for (const fromIndex of [BigInt(events.length + 1), 2n ** 64n - 1n])
    await assert.rejects(
      rawResume(address, { ...ask, fromIndex }),
      says("INVALID_ARGUMENT", /from_index: is \d+, kept are 0…/),
    );
});

test("deadline: of the reader it is the request's, which ends with it", async () => {
  const run = eventsOf(direct.generate({ ...endless, requestId: "timed" }, { deadlineMs: 400 }));
  await assert.rejects(run, { code: "DEADLINE" });
  await eventually("the request is freed", async () => (await held()) === 0, GRACE_MS);
});

test("failure: a stream whose request failed is told the same error again, behind the same events", async () => {
  const events: Event[] = [];
  let failure: unknown;
  try {
    for await (const event of direct.generate({ ...endless, requestId: "failed" })) {
      events.push(event);
      if (events.length === 3) void served.workers[0]?.close();
    }
  } catch (error) {
    failure = error;
  }
  assert.ok(failure instanceof TesseraError);
  assert.equal(failure.code, "RANK_LOST");
  assert.ok(events.length >= 3);
  const [first] = events;
  assert.ok(first !== undefined);
  const ask = { requestId: "failed", resumeToken: tokenOf(first) };
  for (const fromIndex of [BigInt(events.length), BigInt(events.length), 0n])
    await assert.rejects(
      rawResume(address, { ...ask, fromIndex }),
      (error: unknown) =>
        says("RANK_LOST", /./)(error) &&
        ServeError.fromStatus(error as ServiceError)?.message === (failure as Error).message,
    );
});
