/** A mixed load of about 70 % of what a cluster can do, for long, and what its processes hold meanwhile. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve, type Served } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { handleCount } from "../harness/handles.js";
import { bodyOf, capacity, LoadClient, type RequestInit } from "../harness/load-client.js";
import { rssBytes } from "../harness/memory.js";
import { root } from "../harness/paths.js";
import { seeded } from "../harness/random.js";
import { heldCount } from "../harness/shard-stats.js";
import { riseOf, type Sample } from "./slope.js";

const LOAD = 0.7;
const WORKERS = 2;
const CAPACITY_MS = 5000;
const SAMPLE_MS = 500;
const HTTP_DEADLINE_MS = 60_000;
/**
 * Over the time that is looked at, two thirds of the run: allocators and collectors go to and fro by as much, and HTTP
 * clients keep a connection for each call of a busy moment for some seconds.
 */
const ALLOWED = { bytes: 24 << 20, handles: 16 };
const DOCUMENTS = ["document-01.png", "document-05.png", "document-06.jpg", "document-09.webp"];

export interface SoakReport {
  lines: string[];
  /** What rises; nothing when all is well. */
  rising: string[];
}

interface Counts {
  answered: number;
  left: number;
  http: number;
}

class Load {
  readonly counts: Counts = { answered: 0, left: 0, http: 0 };
  private readonly random = seeded(1);

  private constructor(
    private readonly served: Served,
    private readonly client: LoadClient,
    private readonly pictures: Buffer[],
  ) {}

  static async open(served: Served, client: LoadClient): Promise<Load> {
    const names = DOCUMENTS.map((name) => readFile(root(`models/documents/${name}`)));
    return new Load(served, client, await Promise.all(names));
  }

  below(count: number): number {
    return Math.floor(this.random() * count);
  }
  /** Until the next of requests that come by chance, on average `meanMs`. */
  gapMs(meanMs: number): number {
    return -Math.log(1 - this.random()) * meanMs;
  }

  private request(): RequestInit {
    const data = this.pictures[this.below(this.pictures.length)] ?? Buffer.alloc(0);
    const images =
      this.below(4) === 0 ? [{ content: { case: "image" as const, value: { data } } }] : [];
    const value = `Question ${this.below(1e6)}: what is the name? `.repeat(1 + this.below(8));
    const tokens = 4 + this.below(28);
    return {
      messages: [
        {
          role: Role.USER,
          parts: [...images, { content: { case: "text" as const, value } }],
        },
      ],
      n: this.below(8) === 0 ? 2 : 1,
      minTokens: tokens,
      maxTokens: tokens,
      sampling: { temperature: this.below(2), seed: BigInt(this.below(1000)) },
      ...(this.below(6) === 0 ? { topLogprobs: 3 } : {}),
      ...(this.below(10) === 0 ? { promptLogprobs: 1 } : {}),
      ...(this.below(20) === 0 ? { resume: true } : {}),
    };
  }

  /** One request: mostly answered over gRPC, some over HTTP, some left by their client. */
  async one(): Promise<void> {
    const kind = this.below(10);
    if (kind === 0) return this.leave();
    if (kind <= 2) return this.http();
    await this.client.ask(bodyOf(this.request()));
    this.counts.answered++;
  }

  private async leave(): Promise<void> {
    let events = 1 + this.below(4);
    const call = this.client.send(bodyOf(this.request()), {
      onEvent: () => --events === 0 && call.cancel(),
    });
    await call.outcome;
    this.counts.left++;
  }

  private async http(): Promise<void> {
    const response = await fetch(`http://${this.served.cluster.http}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        messages: [{ role: "user", content: `Question ${this.below(1e6)}: what is the total?` }],
        max_tokens: 12,
        stream: this.below(2) === 0,
      }),
      signal: AbortSignal.timeout(HTTP_DEADLINE_MS),
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    this.counts.http++;
  }
}

/** Requests as they come, until the time is over; what fails ends it. */
async function drive(load: Load, of: { meanMs: number; durationMs: number }): Promise<void> {
  const start = performance.now();
  const running = new Set<Promise<void>>();
  const failures: unknown[] = [];
  for (let due = 0; due < of.durationMs && failures.length === 0; due += load.gapMs(of.meanMs)) {
    const waitMs = start + due - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const one: Promise<void> = load
      .one()
      .catch((error: unknown) => void failures.push(error))
      .finally(() => running.delete(one));
    running.add(one);
  }
  await Promise.all(running);
  if (failures.length > 0) throw failures[0];
}

interface Track {
  name: string;
  bytes: Sample[];
  handles: Sample[];
}

/** Looks at every process until it is told to end. */
function watch({ cluster }: Served): { end(): Promise<Track[]> } {
  const start = performance.now();
  const tracks = cluster.pids().map((pid, i): Track & { pid: number } => ({
    pid,
    name: i === 0 ? "coordinator" : `worker ${i - 1}`,
    bytes: [],
    handles: [],
  }));
  let on = true;
  const run = async () => {
    while (on) {
      const at = (performance.now() - start) / 1e3;
      for (const { pid, bytes, handles } of tracks) {
        bytes.push({ at, value: await rssBytes(pid) });
        handles.push({ at, value: await handleCount(pid) });
      }
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    }
  };
  const running = run();
  return {
    async end() {
      on = false;
      await running;
      return tracks;
    },
  };
}

const kib = (bytes: number) => `${(bytes / 1024).toFixed(1)} KiB`;

function report(tracks: Track[]): SoakReport {
  const lines: string[] = [];
  const rising: string[] = [];
  for (const { name, bytes, handles } of tracks) {
    const memory = riseOf(bytes, ALLOWED.bytes);
    const files = riseOf(handles, ALLOWED.handles);
    lines.push(
      `${name}: ${kib(bytes.at(-1)?.value ?? NaN)} resident, slope ${kib(memory.perSecond)}/s ± ` +
        `${kib(memory.standardError)}/s, ${kib(memory.growth)} in all; ` +
        `${handles.at(-1)?.value} handles, slope ${files.perSecond.toFixed(4)}/s ± ${files.standardError.toFixed(4)}/s`,
    );
    if (memory.rises) rising.push(`${name}: memory`);
    if (files.rises) rising.push(`${name}: handles`);
  }
  return { lines, rising };
}

export async function soak(seconds: number): Promise<SoakReport> {
  const served = await serve(WORKERS, { healthPort: 0, http: "127.0.0.1:0" });
  const client = new LoadClient(served.cluster.address);
  try {
    const load = await Load.open(served, client);
    const rate = await capacity({ width: 8, durationMs: CAPACITY_MS }, () => load.one());
    const watching = watch(served);
    await drive(load, { meanMs: 1e3 / (LOAD * rate), durationMs: seconds * 1e3 });
    const tracks = await watching.end();
    await eventually("nothing is held", async () => (await heldCount(served.client)) === 0);
    const { lines, rising } = report(tracks);
    const { answered, left, http } = load.counts;
    const offered = `${(LOAD * rate).toFixed(1)} requests a second for ${seconds} s`;
    const said = `${offered}: ${answered} answered over gRPC, ${http} over HTTP, ${left} left`;
    return { lines: [said, ...lines], rising };
  } finally {
    client.close();
    await served.stop();
  }
}
