/** A load of ten times what a cluster can do, and what is counted of it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { status } from "@grpc/grpc-js";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve, type Served } from "./cluster.js";
import { eventually } from "./eventually.js";
import { get } from "./http.js";
import {
  bodyOf,
  capacity,
  LoadClient,
  openLoop,
  type Answer,
  type Outcome,
  type RequestInit,
} from "./load-client.js";
import { riseOf } from "../soak/slope.js";
import { rssBytes } from "./memory.js";
import { root } from "./paths.js";
import { valueOf } from "./prometheus.js";
import { heldCount } from "./shard-stats.js";

const TIMES = 10;
const LIMITS = { maxRequests: 12, maxQueuedTokens: 2500 };
/** Of requests with a short deadline; shorter than the queue takes. */
const SHORT_MS = 60;
/**
 * Over the last two thirds of the load, of every process, by the line through what is left after collections: so much
 * and more than its noise. Two moments say nothing: a heap is as large as its last collection left it. Nor do some
 * seconds, in which heaps find their size: who asserts it looks on for a minute. Bodies of refused pictures lie until
 * the next collection, some 100 MiB of them (after one the coordinator's heap is as before to 1 MiB); that each of
 * some 20,000 requests leaves 20 KiB is seen, less is the soak's to see.
 */
const GROWTH_LIMIT_BYTES = 384 << 20;

const DOCUMENTS = ["document-01.png", "document-03.png", "document-06.jpg", "document-09.webp"];
const QUESTIONS = ["Read the text.", "What is the name?", "What is the total?"];

interface Asked {
  body: Buffer;
  images: number;
  /** What an idle server says. */
  alone: Answer;
}

/** Texts of several lengths, and pictures, greedy and with seeds. */
async function requests(client: LoadClient): Promise<Asked[]> {
  const pictures = await Promise.all(
    DOCUMENTS.map((name) => readFile(root(`models/documents/${name}`))),
  );
  const asked: Asked[] = [];
  for (let i = 0; i < 12; i++) {
    const shown = i % 3 === 0 ? pictures.slice((i / 3) % 4, ((i / 3) % 4) + 1 + (i % 2)) : [];
    const images = shown.map((data) => ({ content: { case: "image" as const, value: { data } } }));
    const question = `${QUESTIONS[i % 3]} `.repeat(1 + 6 * (i % 4));
    const text = { content: { case: "text" as const, value: question } };
    const request: RequestInit = {
      messages: [{ role: Role.USER, parts: [...images, text] }],
      minTokens: 8 + 4 * (i % 5),
      maxTokens: 8 + 4 * (i % 5),
      returnTokenIds: true,
      sampling: { temperature: i % 2, seed: BigInt(i) },
    };
    const body = bodyOf(request);
    asked.push({ body, images: images.length, alone: await client.ask(body) });
  }
  return asked;
}

interface Sample {
  open: number;
  queued: number;
  waiting: number;
}
interface Watched {
  samples: Sample[];
  /** Resident bytes of each process: the coordinator's, then the workers'. */
  bytes: { at: number; value: number }[][];
}

async function scrape({ cluster }: Served): Promise<string> {
  return (await get(cluster.health, "/metrics")).text;
}

function sampleOf(page: string): Sample {
  return {
    open: valueOf(page, "tessera_num_requests_open"),
    queued: valueOf(page, "tessera_queued_tokens"),
    waiting: valueOf(page, "tessera_num_requests_waiting"),
  };
}

/** Looks again and again until it is told to end. */
function watch(served: Served): { end(): Promise<Watched> } {
  const pids = served.cluster.pids();
  const watched: Watched = { samples: [], bytes: pids.map(() => []) };
  const start = performance.now();
  let on = true;
  const run = async () => {
    while (on) {
      watched.samples.push(sampleOf(await scrape(served)));
      const at = (performance.now() - start) / 1e3;
      const values = await Promise.all(pids.map(rssBytes));
      values.forEach((value, i) => watched.bytes[i]?.push({ at, value }));
    }
  };
  const running = run();
  return {
    async end() {
      on = false;
      await running;
      return watched;
    },
  };
}

/** What the coordinator and the workers grew by, and how many grew more than they may. */
function memoryOf({ bytes }: Watched) {
  const [coordinator, ...workers] = bytes.map((samples) => riseOf(samples, GROWTH_LIMIT_BYTES));
  assert.ok(coordinator !== undefined && workers.length === 2);
  return {
    coordinatorGrowth: coordinator.growth,
    workerGrowth: Math.max(...workers.map(({ growth }) => growth)),
    rising: [coordinator, ...workers].filter(({ rises }) => rises).length,
  };
}

/** One call of the load. */
interface Sent {
  asked: Asked;
  short: boolean;
  outcome: Outcome;
}

/** Every fifth text has little time. */
async function flood(
  client: LoadClient,
  all: Asked[],
  of: { count: number; durationMs: number },
): Promise<Sent[]> {
  const calls: Promise<Sent>[] = [];
  await openLoop(of, (i) => {
    const asked = all[(7 * i) % all.length] ?? assert.fail();
    const short = asked.images === 0 && i % 5 === 0;
    const { outcome } = client.send(asked.body, short ? { deadlineMs: SHORT_MS } : {});
    calls.push(outcome.then((outcome) => ({ asked, short, outcome })));
  });
  return Promise.all(calls);
}

const isRefused = ({ outcome }: Sent) => outcome.error?.code === "OVERLOADED";
const isAnswered = ({ outcome }: Sent) => outcome.usedTokens !== undefined;

/** Refused with a reason and a time, answered as on an idle server, or out of its little time: nothing else. */
function checkOutcomes(all: Sent[]): void {
  for (const { asked, short, outcome } of all) {
    const { error, answer, usedTokens, details, status: code } = outcome;
    if (usedTokens !== undefined) assert.deepEqual(answer, asked.alone);
    else if (error?.code === "OVERLOADED") {
      assert.ok(["requests", "queued tokens"].includes(error.quota ?? ""), error.quota);
      assert.ok((error.retryDelayMs ?? 0) > 0, `${error.retryDelayMs}`);
      assert.deepEqual(answer.tokenIds, []);
    } else assert.deepEqual([short, code], [true, status.DEADLINE_EXCEEDED], details);
  }
}

/** Pictures of refused requests were not decoded, and all others were. */
function checkCounts(all: Sent[], { before, after }: { before: string; after: string }): void {
  const grown = (name: string, labels = {}) =>
    valueOf(after, name, labels) - valueOf(before, name, labels);
  const answered = all.filter(isAnswered);
  const pictures = answered.reduce((sum, { asked }) => sum + asked.images, 0);
  assert.ok(pictures > 0);
  assert.equal(grown("tessera_images_decoded_total"), pictures);
  const refused = all.filter(isRefused).length;
  const late = all.length - answered.length - refused;
  const cut = grown("tessera_requests_cut_total", { cause: "deadline" });
  const counted = grown("tessera_request_refused_total", { code: "OVERLOADED" });
  // A call whose time is up before the refusal arrives is told of its deadline.
  assert.ok(counted >= refused && counted <= refused + late, `${counted} refusals of ${refused}`);
  assert.ok(cut <= late, `${cut} cut, ${late} late`);
  const accepted = grown("tessera_requests_total");
  assert.ok(accepted >= answered.length && accepted <= answered.length + late);
}

async function checkReleased(served: Served): Promise<void> {
  await eventually("nothing is held", async () => (await heldCount(served.client)) === 0);
  const page = await scrape(served);
  assert.deepEqual(sampleOf(page), { open: 0, queued: 0, waiting: 0 });
  assert.equal(valueOf(page, "tessera_num_requests_running"), 0);
  assert.equal(valueOf(page, "tessera_image_embeddings", { state: "held" }), 0);
  assert.equal(valueOf(page, "tessera_kv_cache_usage_ratio"), 0);
}

function checkQueue(samples: Sample[]): void {
  for (const { open, queued, waiting } of samples) {
    assert.ok(open <= LIMITS.maxRequests && waiting <= open, `${open} open, ${waiting} wait`);
    assert.ok(queued <= LIMITS.maxQueuedTokens, `${queued} tokens wait`);
  }
  // It was looked at while it was full.
  assert.ok(samples.some(({ open }) => open >= LIMITS.maxRequests / 2));
}

/** Asserts all but memory; → what it was, in numbers; `rising`: processes whose memory is not flat. */
export async function assertWithstands(durationMs: number): Promise<Record<string, number>> {
  const served = await serve(2, { flags: LIMITS, healthPort: 0 });
  const client = new LoadClient(served.cluster.address);
  try {
    const all = await requests(client);
    const ask = (i: number) => client.ask((all[i % all.length] ?? assert.fail()).body);
    const rate = await capacity({ width: 4, durationMs: Math.min(3000, durationMs / 3) }, ask);
    const before = await scrape(served);
    const count = Math.ceil((TIMES * rate * durationMs) / 1e3);
    const watching = watch(served);
    const sent = await flood(client, all, { count, durationMs });
    const watched = await watching.end();
    await checkReleased(served);
    checkOutcomes(sent);
    checkQueue(watched.samples);
    checkCounts(sent, { before, after: await scrape(served) });
    assert.deepEqual(await ask(0), all[0]?.alone);
    const answered = sent.filter(isAnswered).length;
    const refused = sent.filter(isRefused).length;
    assert.ok(answered > 0 && refused > count / 2, `${answered}, ${refused} of ${count}`);
    const byTokens = sent.filter(({ outcome }) => outcome.error?.quota === "queued tokens").length;
    assert.ok(byTokens < refused, `${byTokens} of ${refused} by their tokens`);
    return {
      count,
      answered,
      refused,
      byTokens,
      samples: watched.samples.length,
      rate,
      ...memoryOf(watched),
    };
  } finally {
    client.close();
    await served.stop();
  }
}
