/** Streams over HTTP that do not come to their end: a group that is lost, a client that does not read. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";
import { serveInProcess, type InProcess } from "../harness/in-process.js";
import { serverEvents } from "../harness/server-events.js";

const messages = [{ role: "user", content: "Hello" }];
const endless = { messages, stream: true, ignore_eos: true, max_tokens: 3000 };

/** Data of the events, `at` told of the first ones. */
async function readEndless(served: InProcess, at: () => Promise<void>): Promise<string[]> {
  const response = await fetch(`http://${served.coordinator.httpAddress}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(endless),
  });
  const events: string[] = [];
  let done: Promise<void> | undefined;
  for await (const { data } of serverEvents(response)) {
    events.push(data);
    if (events.length === 3) done = at();
  }
  await done;
  return events;
}

test("a group that is lost in mid-stream: the last event is the error, and nothing says [DONE]", async () => {
  const served = await serveInProcess(1, { httpListen: "127.0.0.1:0" });
  const [worker] = served.workers;
  assert.ok(worker !== undefined);
  const events = await readEndless(served, () => worker.close());
  const { error } = JSON.parse(events.at(-1) ?? "") as { error: { type: string; code: string } };
  assert.equal(error.type, "server_error");
  assert.equal(error.code, "rank_lost");
  assert.ok(events.every((data) => data !== "[DONE]"));
  await served.coordinator.close();
});

test("a coordinator that closes in mid-stream: the stream is ended, and its connection closed", async () => {
  const served = await serveInProcess(1, { httpListen: "127.0.0.1:0" });
  const events = await readEndless(served, () => served.close());
  assert.match(events.slice(-3).join(), /"finish_reason":"abort"/);
});

test("a client that does not read is cut off, and nothing of its request is left", async () => {
  const { url, held } = await serveHttp();
  const { hostname, port } = new URL(url);
  const many = { ...endless, n: 16, max_tokens: 600, logprobs: true, top_logprobs: 20 };
  const body = JSON.stringify(many);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => undefined);
  socket.write(
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" +
      "content-type: application/json\r\n" +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  await once(socket, "readable");
  // Nothing is read: the socket's buffers fill, then the server's bound is reached.
  await eventually("it runs", async () => (await held()) > 0);
  await eventually("it was ended", async () => (await held()) === 0, 60_000);
  let said = "";
  socket.setEncoding("utf8").on("data", (text: string) => (said += text));
  await once(socket, "close");
  assert.match(said, /"code":"slow_reader"/);
  assert.doesNotMatch(said, /\[DONE\]/);
});
