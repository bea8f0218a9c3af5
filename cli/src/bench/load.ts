/** Sends prompts to a target, in a closed or an open loop, and keeps what came of each. */
import { arrivalTimesMs } from "./arrivals.js";
import type { Clock } from "./clock.js";
import { MAX_GAPS, MAX_IN_FLIGHT, MAX_REQUESTS } from "./limits.js";
import { sourceOf } from "./random.js";
import { answered, failed, type RequestRecord } from "./record.js";
import { Reservoir } from "./statistics.js";
import { StreamTimer } from "./stream-timer.js";
import { TargetFailure, type Target } from "./target.js";
import type { Prompt } from "./workload.js";

export type LoadMode =
  { kind: "closed"; concurrency: number } | { kind: "open"; rate: number; burstiness: number };

export interface LoadOptions {
  mode: LoadMode;
  promptCount: number;
  /** No request starts after it; undefined: no limit. */
  durationMs: number | undefined;
  requestDeadlineMs: number;
  seed: number;
  /** Names this load: each has arrivals of its own. */
  part: string;
  /** Keep the gaps of each request. */
  details: boolean;
}

export interface LoadParts {
  target: Target;
  prompts: Iterator<Prompt, unknown>;
  clock: Clock;
  /** Ends the load: nothing new starts, what runs is cancelled. */
  signal: AbortSignal;
  /** Told after each request. */
  progress: (record: RequestRecord) => void;
}

export interface LoadResult {
  records: RequestRecord[];
  /** Milliseconds between tokens of whole answers. */
  gaps: Reservoir;
  /** First start → last end. */
  wallMs: number;
  inFlightMost: number;
  interrupted: boolean;
}

/** Of a request that Ctrl-C ended. */
export const INTERRUPTED = "interrupted";
/** Of a request that was due while MAX_IN_FLIGHT ran. */
export const CLIENT_LIMIT = "client_limit";

/** Starts that are due between two turns of the event loop: reading is put off by them, some milliseconds at most. */
const START_BURST = 32;

class Load {
  private readonly records: RequestRecord[] = [];
  private readonly running = new Map<Promise<void>, AbortController>();
  private readonly gaps: Reservoir;
  private readonly startMs: number;
  private inFlightMost = 0;
  private sent = 0;

  constructor(
    private readonly options: LoadOptions,
    private readonly parts: LoadParts,
  ) {
    this.gaps = new Reservoir(MAX_GAPS, sourceOf(options.seed, `gaps/${options.part}`));
    this.startMs = parts.clock.now();
  }

  async run(): Promise<LoadResult> {
    const { mode } = this.options;
    const { signal } = this.parts;
    const cancel = () => this.cancelAll();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      if (mode.kind === "open") await this.open(mode);
      else await this.closed(mode.concurrency);
      await Promise.all(this.running.keys());
    } finally {
      signal.removeEventListener("abort", cancel);
    }
    this.records.sort((a, b) => a.index - b.index);
    const { records, gaps, inFlightMost } = this;
    const first = records.reduce((least, { startMs }) => Math.min(least, startMs), Infinity);
    const last = records.reduce((most, { endMs }) => Math.max(most, endMs), 0);
    const wallMs = records.length === 0 ? 0 : last - first;
    return { records, gaps, wallMs, inFlightMost, interrupted: signal.aborted };
  }

  /** Each lane has one request under way. */
  private async closed(concurrency: number): Promise<void> {
    const lane = async () => {
      for (let prompt = this.next(); prompt !== undefined; prompt = this.next())
        await this.start(prompt, this.elapsed());
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
  }

  /** Starts on schedule, whatever is still under way. */
  private async open(mode: { rate: number; burstiness: number }): Promise<void> {
    const { clock, signal } = this.parts;
    const { seed, part, durationMs = Infinity } = this.options;
    let started = 0;
    for (const at of arrivalTimesMs(mode, sourceOf(seed, `arrivals/${part}`))) {
      if (at >= durationMs) return;
      // What is due starts at once; now and then answers get their turn.
      if (at > this.elapsed() || ++started % START_BURST === 0)
        await clock.until(this.startMs + at, signal);
      // At the bound nothing is waited for: an arrival that cannot be sent is an event of the load like any other.
      const prompt = this.next();
      if (prompt === undefined) return;
      if (this.running.size >= MAX_IN_FLIGHT) this.leaveOut(prompt, at);
      else void this.start(prompt, at);
    }
  }

  private elapsed(): number {
    return this.parts.clock.now() - this.startMs;
  }

  private next(): Prompt | undefined {
    const { promptCount, durationMs = Infinity } = this.options;
    const full = this.sent >= Math.min(promptCount, MAX_REQUESTS);
    if (this.parts.signal.aborted || full) return undefined;
    if (this.options.mode.kind === "closed" && this.elapsed() >= durationMs) return undefined;
    const { done, value } = this.parts.prompts.next();
    if (done === true) return undefined;
    this.sent++;
    return value;
  }

  private keep(record: RequestRecord): void {
    this.records.push(record);
    this.parts.progress(record);
  }

  private start(prompt: Prompt, scheduledMs: number): Promise<void> {
    const controller = new AbortController();
    const running = this.perform(prompt, scheduledMs, controller).finally(() =>
      this.running.delete(running),
    );
    this.running.set(running, controller);
    this.inFlightMost = Math.max(this.inFlightMost, this.running.size);
    return running;
  }

  private async perform(
    prompt: Prompt,
    scheduledMs: number,
    controller: AbortController,
  ): Promise<void> {
    const { clock, target } = this.parts;
    const { requestDeadlineMs, details } = this.options;
    const late = () => {
      const message = `no whole answer within ${requestDeadlineMs} ms`;
      controller.abort(new TargetFailure(message, { code: "timeout" }));
    };
    const timeout = setTimeout(late, requestDeadlineMs);
    const begin = clock.now();
    const timer = new StreamTimer(begin, () => clock.now());
    const spanNow = () => ({
      scheduledMs,
      startMs: begin - this.startMs,
      endMs: this.elapsed(),
    });
    try {
      const usage = await target.run(prompt, timer, controller.signal);
      if (timer.times.ttftMs === undefined)
        throw new TargetFailure("the answer has no token", { code: "empty" });
      for (const gapMs of timer.times.gapsMs) this.gaps.add(gapMs);
      const withGaps = details && this.gaps.count <= MAX_GAPS;
      this.keep(answered(prompt, spanNow(), { timer, usage, details: withGaps }));
    } catch (error) {
      const { aborted, reason } = controller.signal as { aborted: boolean; reason: unknown };
      const failure = TargetFailure.from(aborted ? reason : error);
      this.keep(failed(prompt, spanNow(), { timer, failure }));
    } finally {
      clearTimeout(timeout);
    }
  }

  private leaveOut(prompt: Prompt, scheduledMs: number): void {
    const now = this.elapsed();
    const message = `${MAX_IN_FLIGHT} requests were under way`;
    const failure = new TargetFailure(message, { code: CLIENT_LIMIT });
    const timer = new StreamTimer(now, () => now);
    this.keep(failed(prompt, { scheduledMs, startMs: now, endMs: now }, { timer, failure }));
  }

  private cancelAll(): void {
    const reason = new TargetFailure("ended by its caller", { code: INTERRUPTED });
    for (const controller of this.running.values()) controller.abort(reason);
  }
}

export function runLoad(options: LoadOptions, parts: LoadParts): Promise<LoadResult> {
  return new Load(options, parts).run();
}
