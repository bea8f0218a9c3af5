/** Streams of the SDK whose connections are cut at every event. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { TesseraClient, TesseraError, type GenerateInput } from "@tessera/client";
import { EventSchema, Role, type Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { CutProxy, type Cut } from "../harness/cut-proxy.js";
import { eventually } from "../harness/eventually.js";
import { serveInProcess } from "../harness/in-process.js";

const DEADLINE_MS = 60_000;
const served = await serveInProcess(1, {
  maxRequests: 64,
  resumeGraceMs: 60_000,
  healthListen: "127.0.0.1:0",
});
const { address } = served.coordinator;
const direct = new TesseraClient({ addresses: [address], deadlineMs: DEADLINE_MS });
after(async () => {
  direct.close();
  await served.close();
});

const parts = [{ content: { case: "text" as const, value: "What is the name?" } }];
const base: GenerateInput = {
  messages: [{ role: Role.USER, parts }],
  resume: true,
  maxTokens: 8,
  sampling: { temperature: 1, seed: 11n },
  stop: { ignoreEos: true },
};
const requests: [string, GenerateInput][] = [
  ["text", base],
  ["two choices", { ...base, n: 2, returnTokenIds: true }],
  ["logprobs", { ...base, topLogprobs: 2, promptLogprobs: 1, maxTokens: 5 }],
];

/** What must be the same, however often the connection was cut. */
function essence(event: Event): unknown {
  if (event.kind.case === "started") {
    const { requestId: _, resumeToken, ...value } = event.kind.value;
    assert.notEqual(resumeToken, "");
    return { ...event, kind: { ...event.kind, value } };
  }
  if (event.kind.case !== "done") return toJson(EventSchema, event);
  // A prompt that was computed before is found in the prefix cache.
  return [event.index, event.kind.value.usage?.completionTokens];
}

async function eventsOf(stream: AsyncIterable<Event>): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of stream) events.push(essence(event));
  return events;
}

async function throughProxy<T>(
  plan: Cut[],
  run: (client: TesseraClient, proxy: CutProxy) => Promise<T>,
): Promise<T> {
  const proxy = await CutProxy.open(address);
  proxy.plan = [...plan];
  const client = new TesseraClient({ addresses: [proxy.address], deadlineMs: DEADLINE_MS });
  try {
    return await run(client, proxy);
  } finally {
    client.close();
    await proxy.close();
  }
}

async function held(): Promise<number> {
  const { load } = await direct.getCluster();
  assert.ok(load !== undefined);
  return load.runningSequences + load.waitingRequests + load.usedBlocks;
}

for (const [name, request] of requests)
  test(`resume: ${name}, cut behind every event, has the events of the uncut stream`, async () => {
    const whole = await eventsOf(direct.generate(request));
    assert.ok(whole.length > 5);
    for (let cut = 1; cut <= whole.length; cut++)
      await throughProxy([cut], async (client, proxy) => {
        assert.deepEqual(await eventsOf(client.generate(request)), whole, `cut behind ${cut}`);
        // Behind the last event nothing is missing.
        assert.equal(proxy.connections, cut < whole.length ? 2 : 1);
      });
  });

test("resume: connections cut in quick succession, behind one event each and behind none, lose nothing", async () => {
  const whole = await eventsOf(direct.generate(base));
  const each = Array.from(whole, (): Cut => 1);
  await throughProxy(each, async (client, proxy) => {
    assert.deepEqual(await eventsOf(client.generate(base)), whole);
    assert.equal(proxy.connections, whole.length);
  });
  const mixed: Cut[] = [2, "refused", "answered", "refused", 1, "answered", "answered", 3];
  await throughProxy(mixed, async (client, proxy) => {
    assert.deepEqual(await eventsOf(client.generate(base)), whole);
    assert.equal(proxy.connections, mixed.length + 1);
  });
});

test("resume: a connection cut before the first event brings the same stream, not a second one", async () => {
  const before = await counted();
  const whole = await eventsOf(direct.generate(base));
  const one = (await counted()) - before;
  assert.ok(one > 0);
  await throughProxy(["answered", "refused", "answered"], async (client, proxy) => {
    assert.deepEqual(await eventsOf(client.generate(base)), whole);
    assert.equal(proxy.connections, 4);
  });
  assert.equal((await counted()) - before, 2 * one);
});

test("resume: without it a cut stream fails, and is not taken up", async () => {
  await throughProxy([3], async (client, proxy) => {
    const events: Event[] = [];
    const run = async () => {
      for await (const event of client.generate({ ...base, resume: false })) events.push(event);
    };
    await assert.rejects(run, { cut: true, name: "TesseraError" });
    assert.equal(proxy.connections, 1);
    assert.ok(events.length <= 3);
  });
});

const endless: GenerateInput = { ...base, maxTokens: 3000, minTokens: 3000 };

test("resume: leaving the loop, or the signal, ends the request at once and not after the grace time", async () => {
  for await (const { kind } of direct.generate(endless)) if (kind.case === "delta") break;
  await eventually("the left one is freed", async () => (await held()) === 0);
  const controller = new AbortController();
  const run = async () => {
    for await (const { kind } of direct.generate(endless, { signal: controller.signal }))
      if (kind.case === "delta") controller.abort(new Error("enough"));
  };
  await assert.rejects(run, (error: unknown) => {
    assert.ok(error instanceof TesseraError);
    assert.equal(error.code, "ABORTED");
    assert.deepEqual(error.cause, new Error("enough"));
    return true;
  });
  await eventually("the aborted one is freed", async () => (await held()) === 0);
});

test("resume: a signal ends a request whose reader takes nothing", async () => {
  const controller = new AbortController();
  const stream = direct.generate(endless, { signal: controller.signal });
  await stream.next();
  assert.ok((await held()) > 0);
  controller.abort();
  await eventually("the request is freed", async () => (await held()) === 0);
  await assert.rejects(() => eventsOf(stream), { code: "ABORTED" });
});

test("resume: an Abort from elsewhere ends a stream that nobody reads, and its reader sees how", async () => {
  await throughProxy([4, "refused"], async (client, proxy) => {
    const stream = client.generate({ ...endless, requestId: "detached" });
    const first = await stream.next();
    assert.ok(first.done !== true);
    await eventually("the connection is cut", () => proxy.plan.length === 1);
    await direct.abort("detached");
    await eventually("the request is freed", async () => (await held()) === 0);
    const cases: unknown[] = [];
    for await (const { kind } of stream)
      cases.push(kind.case === "finished" ? kind.value.reason : kind.case);
    assert.deepEqual(cases.slice(-2), [4, "done"]);
  });
});

test("resume: the deadline is one over all connections", async () => {
  await throughProxy([2, 2, 2], async (client) => {
    const start = Date.now();
    await assert.rejects(eventsOf(client.generate(endless, { deadlineMs: 700 })), {
      code: "DEADLINE",
    });
    assert.ok(Date.now() - start < DEADLINE_MS);
  });
  await eventually("the request is freed", async () => (await held()) === 0);
});

test("resume: of several addresses the one that keeps the stream is found", async () => {
  const other = await serveInProcess(1, { maxRequests: 64 });
  after(() => other.close());
  const whole = await eventsOf(direct.generate(base));
  const proxy = await CutProxy.open(address);
  after(() => proxy.close());
  const addresses = [proxy.address, other.coordinator.address, address];
  const client = new TesseraClient({ addresses, deadlineMs: DEADLINE_MS });
  after(() => client.close());
  proxy.plan = [3, "refused", "refused", "refused"];
  assert.deepEqual(await eventsOf(client.generate(base)), whole);
});

/** Tokens that the server has made. */
async function counted(): Promise<number> {
  const { text } = await metrics();
  const match = /^tessera_generation_tokens_total(?:\{[^}]*\})? (\d+)/m.exec(text);
  return Number(match?.[1] ?? NaN);
}
async function metrics(): Promise<{ text: string }> {
  const response = await fetch(`http://${served.coordinator.healthAddress}/metrics`);
  return { text: await response.text() };
}
