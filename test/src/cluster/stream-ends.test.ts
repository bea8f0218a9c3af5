/** Streams that do not come to their end: unread ones, and those whose group is lost before they run. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Client, credentials, status, type StatusObject } from "@grpc/grpc-js";
import { TesseraClient, type GenerateInput } from "@tessera/client";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  GenerateRequestSchema,
  Inference,
  Role,
  type GenerateResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serveInProcess } from "../harness/in-process.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";
import { rankStats } from "../harness/shard-stats.js";

const served = await serveInProcess(1, { wireType: "bf16", maxRequests: 64 });
const client = new TesseraClient({ addresses: [served.coordinator.address], deadlineMs: 30_000 });
/** Reads only what it is told to, and never tries again. */
const raw = new Client(served.coordinator.address, credentials.createInsecure(), {
  "grpc-node.flow_control_window": 65_535,
});
after(async () => {
  raw.close();
  client.close();
  await served.close();
});

const { generate } = serviceDefinition(Inference);
const DEADLINE_MS = 60_000;

function open(request: GenerateInput) {
  const { path, requestSerialize, responseDeserialize } = generate;
  const message = create(GenerateRequestSchema, request);
  const settings = { deadline: Date.now() + DEADLINE_MS };
  return raw.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    message,
    settings,
  );
}

/** Reads a stream to its end. */
async function endOf(call: ReturnType<typeof open>) {
  const cases: (string | undefined)[] = [];
  const ended = new Promise<StatusObject>((resolve) => call.on("status", resolve));
  call.on("error", () => undefined);
  call.on("data", ({ event }: GenerateResponse) => cases.push(event?.kind.case));
  const { code: status, metadata } = await ended;
  return { cases, status, code: ServeError.fromStatus({ metadata })?.code };
}

test("GetCluster: the wire type is the one that was asked for", async () => {
  assert.equal((await client.getCluster()).placement?.wireType, "bf16");
});

test("a client that does not read is SLOW_READER, and nothing of its request is left", async () => {
  const length = 400;
  const n = 16;
  const call = open({
    tokenIds: [65, 66, 67],
    n,
    maxTokens: length,
    minTokens: length,
    topLogprobs: 20,
  });
  // A stream that was never read takes all there is; one that was, holds up what comes.
  await once(call, "data");
  call.pause();
  const held = async () => {
    const { load } = await client.getCluster();
    assert.ok(load !== undefined);
    return load.runningSequences + load.waitingRequests + load.usedBlocks;
  };
  await eventually("the request is given up", async () => (await held()) === 0);
  const onRanks = async () => (await rankStats(client)).reduce((sum, r) => sum + r.sequences, 0);
  await eventually("its sequences are closed", async () => (await onRanks()) === 0);
  const end = endOf(call);
  call.resume();
  const ended = await end;
  assert.deepEqual([ended.status, ended.code], [status.RESOURCE_EXHAUSTED, "SLOW_READER"]);
  assert.ok(ended.cases.length < n * length, "it ended early");
  assert.ok(!ended.cases.includes("done") && !ended.cases.includes("finished"));
});

test("a request whose group is lost before it runs fails without an event, so that it can be sent again", async () => {
  const data = await readFile(root("models/documents/document-01.png"));
  const image = { content: { case: "image" as const, value: { data } } };
  const parts = Array.from({ length: 8 }, () => image);
  const request = { messages: [{ role: Role.USER, parts }], maxTokens: 8 };
  const calls = Array.from({ length: 40 }, () => open(request));
  const ends = calls.map(endOf);
  // Four prepare at once: when the first runs, others wait for their turn, and the only rank goes.
  await Promise.race(calls.map((call) => once(call, "data")));
  await served.workers[0]?.close();
  const late = (await Promise.all(ends)).filter(({ code }) => code === "NOT_READY");
  assert.ok(late.length > 0);
  for (const { cases } of late) assert.deepEqual(cases, []);
});
