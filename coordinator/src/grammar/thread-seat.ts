/** A worker thread, what it was asked, and the watch over it. */
import { Worker } from "node:worker_threads";
import type { FromThread, ThreadData, ToThread } from "./protocol.js";

/** From start to ready: loading the library and its view of the vocabulary, on a busy machine. */
const START_MS = 60_000;
/** Looks within one limit. A look counts when the event loop was free to take answers before it. */
const LOOKS = 8;

/** JavaScript heap of a thread; WASM memory has a limit of its own. */
const HEAP_MB = 512;

export type SeatData = Omit<ThreadData, "progress">;

export type SeatFault =
  { kind: "slow"; grammarId: number } | { kind: "broken"; grammarId: number; message: string };

export interface SeatEvents {
  reply(message: FromThread): void;
  /** Once; the seat is closed. */
  fault(fault: SeatFault): void;
}

export class ThreadSeat {
  private readonly worker: Worker;
  private readonly progress = new Int32Array(new SharedArrayBuffer(8));
  private readonly limits: number[] = [];
  private ready = false;
  private closed = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    data: SeatData,
    private events: SeatEvents,
  ) {
    this.worker = new Worker(new URL("./grammar-thread.js", import.meta.url), {
      workerData: { ...data, progress: this.progress } satisfies ThreadData,
      stderr: true,
      stdout: true,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    });
    this.worker.unref();
    this.worker.on("message", (message: FromThread) => this.take(message));
    this.worker.on("error", (error) => this.broken(error.message));
    this.worker.on("exit", () => this.broken("the thread has ended"));
    this.watch(START_MS);
  }

  /** Hands the seat on to who keeps the grammar that was compiled in it. */
  listen(events: SeatEvents): void {
    this.events = events;
  }

  /** `limitMs`: for each piece of work in it. */
  post(message: ToThread, limitMs: number): void {
    if (this.closed) return;
    this.limits.push(limitMs);
    this.worker.postMessage(message);
    if (this.ready && this.limits.length === 1) this.watch(limitMs);
  }

  async close(): Promise<void> {
    this.closed = true;
    clearInterval(this.timer);
    await this.worker.terminate();
  }

  private take(message: FromThread): void {
    if (this.closed) return;
    if (message.kind === "broken") return this.fail({ ...message, kind: "broken" });
    if (message.kind === "ready") this.ready = true;
    else this.limits.shift();
    const [next] = this.limits;
    clearInterval(this.timer);
    if (next !== undefined) this.watch(next);
    else this.worker.unref();
    if (message.kind !== "ready") this.events.reply(message);
  }

  private broken(message: string): void {
    if (!this.closed)
      this.fail({ kind: "broken", grammarId: Atomics.load(this.progress, 1), message });
  }

  /** A fault when nothing is taken up for the whole limit. */
  private watch(limitMs: number): void {
    clearInterval(this.timer);
    this.worker.ref();
    let seen = Atomics.load(this.progress, 0);
    let looks = 0;
    this.timer = setInterval(() => {
      const now = Atomics.load(this.progress, 0);
      looks = now === seen ? looks + 1 : 0;
      seen = now;
      if (looks <= LOOKS) return;
      this.fail({ kind: "slow", grammarId: Atomics.load(this.progress, 1) });
    }, limitMs / LOOKS);
  }

  private fail(fault: SeatFault): void {
    if (this.closed) return;
    void this.close();
    this.events.fault(fault);
  }
}
