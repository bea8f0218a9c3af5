/** Clients that go away at any moment, over gRPC and HTTP, and what is left of them. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { request as httpRequest, type ClientRequest } from "node:http";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve, type Served } from "./cluster.js";
import { eventually } from "./eventually.js";
import { handleCount } from "./handles.js";
import { get } from "./http.js";
import { bodyOf, LoadClient } from "./load-client.js";
import { assertFlat, LiveBytes, type Held } from "./live-bytes.js";
import { root } from "./paths.js";
import { valueOf } from "./prometheus.js";
import { seeded } from "./random.js";
import { heldCount } from "./shard-stats.js";

/** At once under way. */
const WIDTH = 24;
/** Steps that the loop makes after the last request has gone: the one under way, and the plan that tells the ranks. */
const LAST_STEPS = 2;
/**
 * When a client leaves: `sent`, so many turns of its event loop after sending; `events`, after so many events (of a
 * short answer that is near its end), and so many turns.
 */
interface Leave {
  events: number;
  turns: number;
}

interface Kinds {
  grpc: { long: Buffer[]; short: Buffer };
  http: { long: string[]; short: string };
}

async function kinds(): Promise<Kinds> {
  const picture = await readFile(root("models/documents/document-05.png"));
  const prose = "What is the name? ".repeat(40);
  const [some, few] = [
    { minTokens: 600, maxTokens: 600 },
    { minTokens: 2, maxTokens: 2 },
  ];
  const say = (value: string, image = false) => [
    {
      role: Role.USER,
      parts: [
        ...(image ? [{ content: { case: "image" as const, value: { data: picture } } }] : []),
        { content: { case: "text" as const, value } },
      ],
    },
  ];
  const text = (value: string) => ({ type: "text", text: value });
  const url = `data:image/png;base64,${picture.toString("base64")}`;
  const shown = [{ type: "image_url", image_url: { url } }, text("Read the text.")];
  const body = (content: object[], tokens: number) =>
    JSON.stringify({
      messages: [{ role: "user", content }],
      stream: true,
      max_tokens: tokens,
      ignore_eos: true,
    });
  return {
    grpc: {
      long: [say("Name?"), say(prose), say("Read the text.", true)].map((messages) =>
        bodyOf({ messages, ...some }),
      ),
      short: bodyOf({ messages: say("Name?"), ...few }),
    },
    http: {
      long: [[text("Name?")], [text(prose)], shown].map((content) => body(content, 600)),
      short: body([text("Name?")], 2),
    },
  };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}

/** Resolves when `count` events have come, or the call has ended. */
class Seen {
  private count = 0;
  private reached: () => void = () => undefined;
  readonly enough: Promise<void>;
  constructor(private readonly wanted: number) {
    this.enough = new Promise((resolve) => (this.reached = resolve));
    if (wanted === 0) this.reached();
  }
  add = (): void => {
    if (++this.count >= this.wanted) this.reached();
  };
  end = (): void => this.reached();
}

async function leaveGrpc(client: LoadClient, body: Buffer, at: Leave): Promise<void> {
  const seen = new Seen(at.events);
  const call = client.send(body, { onEvent: seen.add });
  void call.outcome.then(seen.end);
  await seen.enough;
  await turns(at.turns);
  call.cancel();
  await call.outcome;
}

function post(address: string, body: string): ClientRequest {
  const headers = { "content-type": "application/json" };
  const call = httpRequest(`http://${address}/v1/chat/completions`, {
    method: "POST",
    headers,
    // A connection of its own, which ends with it.
    agent: false,
  });
  call.end(body);
  return call;
}

async function leaveHttp(address: string, body: string, at: Leave): Promise<void> {
  const seen = new Seen(at.events);
  const call = post(address, body);
  const closed = new Promise((resolve) => call.once("close", resolve));
  // Of a connection that is cut by ourselves.
  call.on("error", () => undefined);
  call.on("close", seen.end);
  call.on("response", (response) => {
    response.on("error", () => undefined);
    response.on("data", seen.add);
  });
  await seen.enough;
  await turns(at.turns);
  call.destroy();
  await closed;
}

/** Ends `count` requests at moments that the seed gives. */
async function leaveAll(
  { cluster }: Served,
  client: LoadClient,
  of: { kinds: Kinds; count: number; seed: number },
): Promise<void> {
  const random = seeded(of.seed);
  const below = (n: number) => Math.floor(random() * n);
  const { grpc, http } = of.kinds;
  let left = of.count;
  const one = async () => {
    while (left-- > 0) {
      const short = below(5) === 0;
      const events = short ? 2 + below(3) : [0, 0, 1, 1 + below(8)][below(4)];
      const at = { events: events ?? 0, turns: below(3) === 0 ? 0 : below(40) };
      const which = [0, 0, 0, 1, 1, 2][below(6)] ?? 0;
      if (below(3) > 0)
        await leaveGrpc(client, (short ? grpc.short : grpc.long[which]) ?? grpc.short, at);
      else await leaveHttp(cluster.http ?? "", (short ? http.short : http.long[which]) ?? "", at);
    }
  };
  await Promise.all(Array.from({ length: WIDTH }, one));
}

async function scrape({ cluster }: Served): Promise<string> {
  return (await get(cluster.health, "/metrics")).text;
}

/** As soon as no request has a place, a step or two later nobody holds anything. */
async function checkReleased(served: Served): Promise<void> {
  const steps = (page: string) => valueOf(page, "tessera_step_seconds");
  let page = "";
  await eventually("no request has a place", async () => {
    page = await scrape(served);
    return valueOf(page, "tessera_num_requests_open") === 0;
  });
  const then = steps(page);
  await eventually("nothing is held", async () => (await heldCount(served.client)) === 0, 2000);
  const after = await scrape(served);
  assert.ok(steps(after) - then <= LAST_STEPS, `${steps(after) - then} steps for nobody`);
  assert.equal(valueOf(after, "tessera_queued_tokens"), 0);
  assert.equal(valueOf(after, "tessera_kept_streams"), 0);
}

const REASONS = ["stop", "length", "aborted", "error"];

/** Every request that was accepted has ended once, by itself or cut, and nobody was cut for another cause. */
function checkCounts(page: string, count: number): Record<string, number> {
  const value = (name: string, labels = {}) => valueOf(page, name, labels);
  const ended = REASONS.map((finished_reason) =>
    value("tessera_request_success_total", { finished_reason }),
  );
  const [, , aborted = NaN] = ended;
  const accepted = value("tessera_requests_total");
  const cut = value("tessera_requests_cut_total", { cause: "disconnect" });
  assert.equal(
    ended.reduce((sum, one) => sum + one, 0),
    accepted,
  );
  for (const cause of ["aborted", "slow_reader", "deadline"])
    assert.equal(value("tessera_requests_cut_total", { cause }), 0, cause);
  // The others were cut before they were accepted, or before they were read.
  assert.ok(cut >= aborted && cut + accepted - aborted <= count, `${cut} cut, ${aborted} aborted`);
  const early = cut - aborted;
  const whole = accepted - aborted;
  const unseen = count - cut - whole;
  return { accepted, cut, early, whole, unseen };
}

/** Asserts all of it; → what it was, in numbers. */
export async function assertNoZombies(count: number): Promise<Record<string, number>> {
  const [memory, served] = await LiveBytes.around(() =>
    serve(2, { healthPort: 0, http: "127.0.0.1:0" }),
  );
  const client = new LoadClient(served.cluster.address);
  const all = await kinds();
  const pids = served.cluster.pids();
  const held = (): Promise<Held[]> => Promise.all(pids.map((pid) => memory.of(pid)));
  const handles = () => Promise.all(pids.map(handleCount));
  try {
    const first = Math.ceil(count / 3);
    await leaveAll(served, client, { kinds: all, count: first, seed: 1 });
    await checkReleased(served);
    const [handlesThen, heldThen] = [await handles(), await held()];
    await leaveAll(served, client, { kinds: all, count: count - first, seed: 2 });
    await checkReleased(served);
    const figures = checkCounts(await scrape(served), count);
    await eventually("handles are as before", async () =>
      (await handles()).every((now, i) => now <= (handlesThen[i] ?? 0)),
    );
    const growth = assertFlat(heldThen, await held());
    const { reason } = await client.ask(all.grpc.short);
    assert.ok(reason !== undefined);
    return { ...figures, ...growth };
  } finally {
    client.close();
    await served.stop();
    await memory.end();
  }
}
