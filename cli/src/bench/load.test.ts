/** The loops on a clock that the test turns, against a target that takes as long as it says. */
import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import { arrivalTimesMs } from "./arrivals.js";
import type { Clock } from "./clock.js";
import { MAX_IN_FLIGHT } from "./limits.js";
import { CLIENT_LIMIT, INTERRUPTED, runLoad, type LoadOptions, type LoadResult } from "./load.js";
import { sourceOf } from "./random.js";
import type { StreamTimer, Usage } from "./stream-timer.js";
import { TargetFailure, type ServerInfo, type Target } from "./target.js";
import type { Prompt } from "./workload.js";

class TurnedClock implements Clock {
  private at = 0;
  private waiting: { at: number; done: () => void }[] = [];
  now(): number {
    return this.at;
  }
  until(at: number, signal: AbortSignal): Promise<void> {
    if (at <= this.at || signal.aborted) return turn();
    return new Promise((resolve) => {
      this.waiting.push({ at, done: resolve });
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  /** Turns the clock from event to event until nobody waits for it before `end`. */
  async run(end = Infinity): Promise<void> {
    for (;;) {
      for (let i = 0; i < 10; i++) await turn();
      this.waiting.sort((a, b) => a.at - b.at);
      const next = this.waiting[0];
      if (next === undefined || next.at > end) return;
      this.waiting.shift();
      this.at = Math.max(this.at, next.at);
      next.done();
    }
  }
  skip(ms: number): void {
    this.at += ms;
  }
}

const NEVER = new AbortController().signal;
const USAGE: Usage = { promptTokens: 7, completionTokens: 2, cachedTokens: 0 };

/** Answers two tokens, the first after `firstMs`, the second 10 ms later. */
class TimedTarget implements Target {
  underWay = 0;
  most = 0;
  readonly seen: number[] = [];
  constructor(
    private readonly clock: Clock,
    private readonly firstMs: (prompt: Prompt) => number,
  ) {}
  async run(prompt: Prompt, timer: StreamTimer, signal: AbortSignal): Promise<Usage> {
    this.seen.push(prompt.index);
    this.most = Math.max(this.most, ++this.underWay);
    try {
      await this.clock.until(this.clock.now() + this.firstMs(prompt), signal);
      signal.throwIfAborted();
      timer.addChunk(timer.now(), 1);
      await this.clock.until(this.clock.now() + 10, signal);
      signal.throwIfAborted();
      timer.addChunk(timer.now(), 1);
      return USAGE;
    } finally {
      this.underWay--;
    }
  }
  check(): Promise<ServerInfo> {
    return Promise.reject(new Error("not asked here"));
  }
  countTokens(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

function* prompts(): Generator<Prompt> {
  for (let index = 0; ; index++)
    yield { index, text: "a", pictures: [], inputTokens: 7, outputTokens: 2, prefix: undefined };
}

const OPTIONS: LoadOptions = {
  mode: { kind: "closed", concurrency: 1 },
  promptCount: 10,
  durationMs: undefined,
  requestDeadlineMs: 600_000,
  seed: 5,
  part: "load",
  details: false,
};

interface Started {
  clock: TurnedClock;
  target: TimedTarget;
  result: Promise<LoadResult>;
}

function start(
  options: Partial<LoadOptions>,
  firstMs: (prompt: Prompt) => number,
  signal: AbortSignal = NEVER,
): Started {
  const clock = new TurnedClock();
  const target = new TimedTarget(clock, firstMs);
  const parts = { target, prompts: prompts(), clock, signal, progress: () => undefined };
  return { clock, target, result: runLoad({ ...OPTIONS, ...options }, parts) };
}

test("an open loop starts each request on its schedule though none is answered", async () => {
  const mode = { kind: "open", rate: 20, burstiness: 1 } as const;
  const { clock, target, result } = start({ mode, promptCount: 50 }, () => 1e6);
  await clock.run(1e5);
  assert.equal(target.underWay, 50);
  await clock.run();
  const { records, inFlightMost } = await result;
  const due = arrivalTimesMs(mode, sourceOf(5, "arrivals/load"));
  for (const { scheduledMs, startMs, endMs } of records) {
    const at = due.next().value as number;
    // Sums of floats: the clock adds what the schedule added.
    assert.ok(Math.abs(startMs - at) < 1e-6 && scheduledMs === at, `${startMs} for ${at}`);
    assert.ok(Math.abs(endMs - startMs - 1e6 - 10) < 1e-6);
  }
  assert.deepEqual([records.length, inFlightMost], [50, 50]);
});

test("an open loop that was held up catches up and says how late it was", async () => {
  const mode = { kind: "open", rate: 1000, burstiness: 1 } as const;
  const { clock, result } = start({ mode, promptCount: 40 }, () => 5);
  clock.skip(10_000);
  await clock.run();
  const { records } = await result;
  assert.equal(records.length, 40);
  // The arrivals are within the first 10 s, the start was held up until then: each is late by what is left of it.
  for (const { startMs, scheduledMs } of records.slice(1)) {
    assert.ok(scheduledMs < 1000);
    assert.ok(startMs - scheduledMs >= 9000, `${startMs} for ${scheduledMs}`);
  }
});

test("a closed loop has so many requests under way, never more", async () => {
  const mode = { kind: "closed", concurrency: 4 } as const;
  const firstMs = ({ index }: Prompt) => 10 + (index % 3) * 50;
  const { clock, target, result } = start({ mode, promptCount: 30 }, firstMs);
  await clock.run();
  const { records, inFlightMost } = await result;
  assert.deepEqual([records.length, target.most, inFlightMost], [30, 4, 4]);
  for (const { startMs, scheduledMs } of records) assert.equal(startMs, scheduledMs);
});

test("the latencies of an answer are its own", async () => {
  const { clock, result } = start({ promptCount: 2, details: true }, () => 40);
  await clock.run();
  const { records, gaps, wallMs } = await result;
  const [, second] = records;
  assert.deepEqual(
    [second?.startMs, second?.ttftMs, second?.e2elMs, second?.tpotMs, second?.gapsMs],
    [50, 40, 50, 10, [10]],
  );
  assert.deepEqual([second?.inputTokens, second?.outputTokens], [7, 2]);
  assert.deepEqual([gaps.values, wallMs], [[10, 10], 100]);
});

test("after its duration nothing starts, what runs is answered whole", async () => {
  const closed = start({ promptCount: Infinity, durationMs: 225 }, () => 90);
  await closed.clock.run();
  const { records } = await closed.result;
  assert.deepEqual(
    records.map(({ startMs, failure }) => [startMs, failure]),
    [0, 100, 200].map((at) => [at, undefined]),
  );
  const mode = { kind: "open", rate: 100, burstiness: 1 } as const;
  const open = start({ mode, promptCount: Infinity, durationMs: 500 }, () => 5000);
  await open.clock.run();
  const all = (await open.result).records;
  assert.ok(all.length > 20, `${all.length}`);
  assert.ok(all.every(({ startMs, failure }) => startMs < 500 && failure === undefined));
});

test("the caller's signal ends the load: the answers so far stay, what ran is marked", async () => {
  const interrupt = new AbortController();
  const mode = { kind: "closed", concurrency: 2 } as const;
  const { clock, target, result } = start({ mode, promptCount: 100 }, () => 90, interrupt.signal);
  await clock.run(350);
  interrupt.abort();
  await clock.run();
  const { records, interrupted } = await result;
  const codes = records.map(({ failure }) => failure?.code);
  assert.deepEqual(codes, [...Array<undefined>(6).fill(undefined), INTERRUPTED, INTERRUPTED]);
  assert.deepEqual([interrupted, target.underWay], [true, 0]);
});

test("what is due beyond the bound of requests under way is counted, not sent and not waited for", async () => {
  const mode = { kind: "open", rate: Infinity, burstiness: 1 } as const;
  const { clock, target, result } = start({ mode, promptCount: MAX_IN_FLIGHT + 3 }, () => 1000);
  while (target.seen.length < MAX_IN_FLIGHT) await turn();
  await clock.run();
  const { records } = await result;
  const left = records.filter(({ failure }) => failure?.code === CLIENT_LIMIT);
  assert.deepEqual(
    [records.length, left.length, target.most],
    [MAX_IN_FLIGHT + 3, 3, MAX_IN_FLIGHT],
  );
});

test("an answer that is too late fails as a timeout", async () => {
  const { result } = start({ promptCount: 1, requestDeadlineMs: 1 }, () => 1e9);
  const [record] = (await result).records;
  assert.equal(record?.failure?.code, "timeout");
  assert.match(record?.failure?.message ?? "", /within 1 ms/);
});

test("a failure keeps its code and its time to come again, and has no latencies", async () => {
  const clock = new TurnedClock();
  const target = new TimedTarget(clock, () => {
    throw new TargetFailure("full", { code: "http_429", refused: true, retryAfterMs: 1500 });
  });
  const parts = { target, prompts: prompts(), clock, signal: NEVER, progress: () => undefined };
  const { records, gaps } = await runLoad({ ...OPTIONS, promptCount: 1 }, parts);
  const [record] = records;
  const failure = { code: "http_429", message: "full", refused: true, retryAfterMs: 1500 };
  assert.deepEqual([record?.failure, record?.ttftMs, gaps.count], [failure, undefined, 0]);
});

test("an end without a token is no answer", async () => {
  const clock = new TurnedClock();
  const target = new TimedTarget(clock, () => 0);
  target.run = () => Promise.resolve(USAGE);
  const parts = { target, prompts: prompts(), clock, signal: NEVER, progress: () => undefined };
  const { records } = await runLoad({ ...OPTIONS, promptCount: 1 }, parts);
  assert.equal(records[0]?.failure?.code, "empty");
});
