/** The main thread's side of the exchange thread. */
import { Worker } from "node:worker_threads";
import { ServeError, type PeerTls } from "@tessera/proto";
import type { FromExchange, PairTransport, ToExchange } from "./exchange-messages.js";

export { chooseSpinUs, SPIN_US } from "./exchange-spin.js";

const CLOSE_DEADLINE_MS = 2000;

export interface ExchangeEvents {
  onLost(epoch: bigint, rank: number, reason: string): void;
}

export interface ExchangePlace {
  host: string;
  /** Absent: plain text. */
  tls?: PeerTls | undefined;
}

/** Beyond the thread's own deadline of a join. */
const GRACE_MS = 2000;

interface Joining {
  epoch: bigint;
  settle: (end: ServeError | PairTransport[]) => void;
}

export class Exchange {
  private joining: Joining | undefined;
  private closing = false;

  private constructor(
    private readonly thread: Worker,
    readonly port: number,
    events: ExchangeEvents,
  ) {
    thread.on("message", (message: FromExchange) => {
      if (message.kind === "lost") {
        events.onLost(message.epoch, message.rank, message.reason);
        const error = new ServeError("RANK_LOST", `rank ${message.rank}: ${message.reason}`);
        this.settle(message.epoch, error);
      }
      if (message.kind === "joined") this.settle(message.epoch, message.pairs);
      if (message.kind === "failed")
        this.settle(message.epoch, new ServeError(message.code, message.message));
    });
    // A worker without its exchange is none: the process ends, and with it what its peers wait for.
    thread.on("error", (error) => {
      throw new Error("the exchange thread failed", { cause: error });
    });
    thread.on("exit", (code) => {
      if (!this.closing) throw new Error(`the exchange thread ended with ${code}`);
    });
  }

  static async start({ host, tls }: ExchangePlace, events: ExchangeEvents): Promise<Exchange> {
    const thread = new Worker(new URL("./exchange-thread.js", import.meta.url));
    const port = await new Promise<number>((resolve, reject) => {
      thread.once("error", reject);
      thread.once("message", (message: FromExchange) => {
        if (message.kind === "listening") resolve(message.port);
      });
      thread.postMessage({ kind: "listen", host, tls } satisfies ToExchange);
    });
    thread.removeAllListeners("error");
    return new Exchange(thread, port, events);
  }

  private settle(epoch: bigint, end: ServeError | PairTransport[]): void {
    if (this.joining?.epoch === epoch) this.joining.settle(end);
  }

  /**
   * Resolves when every peer is connected and has the same plan, to how each pair's collectives go; bounded by
   * `deadlineMs`, and by the thread's end.
   */
  join(message: Omit<Extract<ToExchange, { kind: "join" }>, "kind">): Promise<PairTransport[]> {
    const { epoch, deadlineMs } = message;
    this.joining?.settle(new ServeError("STALE_EPOCH", `epoch ${epoch} came in between`));
    return new Promise((resolve, reject) => {
      const joining: Joining = {
        epoch,
        settle: (end) => {
          clearTimeout(timer);
          if (this.joining === joining) this.joining = undefined;
          if (end instanceof ServeError) reject(end);
          else resolve(end);
        },
      };
      const late = () =>
        joining.settle(new ServeError("RANK_LOST", `no exchange within ${deadlineMs} ms`));
      const timer = setTimeout(late, deadlineMs + GRACE_MS);
      this.joining = joining;
      this.thread.postMessage({ kind: "join", ...message } satisfies ToExchange);
    });
  }

  leave(): void {
    this.joining?.settle(new ServeError("STALE_EPOCH", "the epoch was left"));
    this.thread.postMessage({ kind: "leave" } satisfies ToExchange);
  }

  /** The thread ends by itself, what native code holds of it given back; it is cut off only when that takes long. */
  async close(): Promise<void> {
    this.closing = true;
    this.joining?.settle(new ServeError("STALE_EPOCH", "the worker is closing"));
    const ended = new Promise<void>((resolve) => this.thread.once("exit", () => resolve()));
    this.thread.postMessage({ kind: "close" } satisfies ToExchange);
    const timer = setTimeout(() => void this.thread.terminate(), CLOSE_DEADLINE_MS);
    await ended;
    clearTimeout(timer);
  }
}
