/** Streams over HTTP that are cut at every event and taken up again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";
import { allEvents, serverEvents, type ServerEvent } from "../harness/server-events.js";

const { url, call, held, openai } = await serveHttp();
const messages = [{ role: "user", content: "What is the name?" }];

async function post(path: string, body: object): Promise<Response> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200);
  return response;
}

function resume(id: string, lastEventId: string): Promise<Response> {
  return fetch(`${url}/v1/streams/${id}`, { headers: { "last-event-id": lastEventId } });
}

/** Reads so many events, then cuts the connection. */
async function firstEvents(response: Response, count: number): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  for await (const event of serverEvents(response)) {
    events.push(event);
    if (events.length === count) break;
  }
  return events;
}

function lastId(events: ServerEvent[]): string {
  return events.findLast(({ id }) => id !== undefined)?.id ?? assert.fail("no event has an id");
}

const options = { include_usage: true };
const sampled = {
  temperature: 1,
  seed: 11,
  max_tokens: 10,
  ignore_eos: true,
  stream: true,
  resume: true,
};
const bodies: [string, string, object][] = [
  ["a conversation", "/v1/chat/completions", { messages, ...sampled }],
  [
    "choices with logprobs and usage",
    "/v1/chat/completions",
    { messages, ...sampled, n: 2, logprobs: true, top_logprobs: 1, stream_options: options },
  ],
  [
    "running usage",
    "/v1/chat/completions",
    { messages, ...sampled, stream_options: { ...options, continuous_usage_stats: true } },
  ],
  [
    "a completion with logprobs",
    "/v1/completions",
    { prompt: "The name is", ...sampled, logprobs: 1, n: 2, stream_options: options },
  ],
  ["an echo", "/v1/completions", { prompt: "The name is", ...sampled, echo: true }],
];

for (const [name, path, body] of bodies)
  test(`resume: ${name}, cut at every event, has the chunks of the uncut stream`, async () => {
    const response = await post(path, body);
    const id = response.headers.get("x-request-id") ?? "";
    const whole = await allEvents(response);
    assert.equal(whole.at(-1)?.data, "[DONE]");
    assert.ok(whole.length > 5);
    for (let cut = 1; cut < whole.length; cut++) {
      const rest = await resume(id, lastId(whole.slice(0, cut)));
      assert.equal(rest.status, 200);
      assert.equal(rest.headers.get("x-request-id"), id);
      assert.deepEqual(await allEvents(rest), whole.slice(cut));
    }
  });

test("resume: a stream whose connection is cut again and again while it runs has no gap and no repeat", async () => {
  const body = { messages, ...sampled, seed: 12, max_tokens: 60 };
  const response = await post("/v1/chat/completions", body);
  const id = response.headers.get("x-request-id") ?? "";
  const events = await firstEvents(response, 2);
  for (let round = 0; events.at(-1)?.data !== "[DONE]"; round++) {
    assert.ok(round < 100);
    events.push(...(await firstEvents(await resume(id, lastId(events)), 3)));
  }
  const uncut = await allEvents(await resume(id, lastId(events.slice(0, 1))));
  assert.deepEqual(events.slice(1), uncut);
  const { choices } = await openai.chat.completions.create({
    model: "",
    messages: [{ role: "user", content: "What is the name?" }],
    temperature: 1,
    seed: 12,
    max_tokens: 60,
    ...{ ignore_eos: true },
  });
  const text = events
    .slice(0, -1)
    .map(({ data }) => JSON.parse(data) as { choices: { delta: { content?: string } }[] })
    .map((chunk) => chunk.choices[0]?.delta.content ?? "");
  assert.equal(text.join(""), choices[0]?.message.content);
});

test("resume: the same body under the same id is the same stream, another body is refused", async () => {
  const body = { messages, ...sampled, request_id: "again" };
  const first = await allEvents(await post("/v1/chat/completions", body));
  const second = await allEvents(await post("/v1/chat/completions", body));
  const texts = (events: ServerEvent[]) =>
    events.map(({ data }) => data.replace(/"created":\d+/, ""));
  assert.deepEqual(texts(second), texts(first));
  for (const other of [
    { ...body, seed: 1 },
    { ...body, resume: false },
  ]) {
    const refused = await call("POST", "/v1/chat/completions", { body: other });
    assert.equal(refused.status, 409);
    assert.match(refused.text, /"code":"request_exists"/);
  }
});

test("resume: a wrong token, another id and a place that is none are refused", async () => {
  const response = await post("/v1/chat/completions", { messages, ...sampled });
  const id = response.headers.get("x-request-id") ?? "";
  const known = lastId(await allEvents(response));
  const refused: [string, string, number, RegExp][] = [
    [id, known.replace(/^[\w-]{4}/, "AAAA"), 404, /no stream of .* is kept under this token/],
    ["req-none", known, 404, /no stream of .*req-none/],
    [id, "7", 400, /last-event-id: is \\"7\\", must be an event's id/],
    [id, known.replace(/:\d+$/, ":999999"), 400, /last-event-id: is 1000000, kept are/],
  ];
  for (const [stream, place, status, message] of refused) {
    const rest = await resume(stream, place);
    assert.equal(rest.status, status);
    assert.match(await rest.text(), message);
  }
  const missing = await call("GET", `/v1/streams/${id}`);
  assert.equal(missing.status, 400);
  assert.match(missing.text, /last-event-id: is missing/);
});

test("resume: several prompts cannot be resumed, a stream without resume has no ids", async () => {
  const body = { prompt: ["a", "b"], ...sampled };
  const refused = await call("POST", "/v1/completions", { body });
  assert.equal(refused.status, 400);
  assert.match(refused.text, /resume: is true beside 2 prompts/);
  const plain = await post("/v1/chat/completions", { messages, ...sampled, resume: false });
  assert.ok((await allEvents(plain)).every(({ id }) => id === undefined));
});

test("resume: DELETE ends a stream that nobody reads", async () => {
  const body = { messages, stream: true, resume: true, ignore_eos: true, max_tokens: 3000 };
  const response = await post("/v1/chat/completions", body);
  const id = response.headers.get("x-request-id") ?? "";
  const events = await firstEvents(response, 2);
  assert.ok((await held()) > 0);
  assert.equal((await call("DELETE", `/v1/streams/${id}`)).status, 200);
  const rest = await allEvents(await resume(id, lastId(events)));
  assert.match(rest.at(-2)?.data ?? "", /"finish_reason":"abort"/);
  await eventually("it is freed", async () => (await held()) === 0);
});
