/** Requests that are ended from outside are counted by their cause; a collector that is gone costs nobody anything. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { TesseraClient, type GenerateInput } from "@tessera/client";
import { eventually } from "../harness/eventually.js";
import { get } from "../harness/http.js";
import { serveInProcess } from "../harness/in-process.js";
import { valueOf } from "../harness/prometheus.js";

const served = await serveInProcess(1, {
  healthListen: "127.0.0.1:0",
  otlpEndpoint: "http://127.0.0.1:1",
});
const { coordinator } = served;
const client = new TesseraClient({ addresses: [coordinator.address], deadlineMs: 60_000 });
after(async () => {
  client.close();
  await served.close();
});

const long: GenerateInput = { tokenIds: [65, 66, 67], minTokens: 3000, maxTokens: 3000 };
const value = async (name: string, labels = {}) =>
  valueOf((await get(coordinator.healthAddress, "/metrics")).text, name, labels);
const cut = (cause: string) => value("tessera_requests_cut_total", { cause });

test("an Abort is counted as aborted", async () => {
  const stream = client.generate({ ...long, requestId: "a" });
  await stream.next();
  await client.abort("a");
  for await (const _ of stream);
  assert.equal(await cut("aborted"), 1);
});

test("a client that leaves is counted as disconnect", async () => {
  const abort = new AbortController();
  const stream = client.generate(long, { signal: abort.signal });
  await stream.next();
  abort.abort();
  await assert.rejects(async () => {
    for await (const _ of stream);
  });
  await eventually("the disconnect", async () => (await cut("disconnect")) === 1);
});

test("a call whose time is up is counted as deadline, and what ended by itself not at all", async () => {
  await assert.rejects(client.generateOnce(long, { deadlineMs: 300 }));
  await eventually("the deadline", async () => (await cut("deadline")) === 1);
  await client.generateOnce({ ...long, minTokens: 2, maxTokens: 2 });
  await assert.rejects(client.generateOnce({ ...long, n: 0 }));
  assert.deepEqual(await Promise.all(["aborted", "disconnect", "slow_reader"].map(cut)), [1, 1, 0]);
});

test("what was asked for, and how long each part took", async () => {
  const counts = ["params_n", "params_max_tokens", "max_num_generation_tokens", "inference_time"];
  const names = counts.map((name) => `tessera_request_${name}`);
  const [choices, ...others] = await Promise.all(
    names.map((name) => value(name.endsWith("time") ? `${name}_seconds` : name)),
  );
  assert.ok((choices ?? 0) >= 3);
  assert.deepEqual(others, [choices, choices, choices]);
  assert.ok((await value("tessera_request_decode_time_seconds_sum")) > 0);
  assert.ok((await value("tessera_request_prefill_time_seconds_sum")) > 0);
});

test("a collector that is gone: every request was answered, and its spans are counted as failed", async () => {
  await eventually(
    "the failed spans",
    async () => (await value("tessera_trace_spans_total", { fate: "failed" })) > 0,
    60_000,
  );
  assert.equal(await value("tessera_trace_spans_total", { fate: "exported" }), 0);
});
