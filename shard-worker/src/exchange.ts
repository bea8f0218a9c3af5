/** The main thread's side of the exchange thread. */
import { Worker } from "node:worker_threads";
import { ServeError } from "@tessera/proto";
import type { FromExchange, ToExchange } from "./exchange-messages.js";

export { chooseSpinUs, SPIN_US } from "./exchange-spin.js";

const CLOSE_DEADLINE_MS = 2000;

export interface ExchangeEvents {
  onLost(epoch: bigint, rank: number, reason: string): void;
}

export class Exchange {
  private joining: { epoch: bigint; settle: (error?: ServeError) => void } | undefined;

  private constructor(
    private readonly thread: Worker,
    readonly port: number,
    events: ExchangeEvents,
  ) {
    thread.on("message", (message: FromExchange) => {
      if (message.kind === "lost") {
        events.onLost(message.epoch, message.rank, message.reason);
        this.settle(
          message.epoch,
          new ServeError("RANK_LOST", `rank ${message.rank}: ${message.reason}`),
        );
      }
      if (message.kind === "joined") this.settle(message.epoch);
      if (message.kind === "failed")
        this.settle(message.epoch, new ServeError(message.code, message.message));
    });
  }

  static async start(host: string, events: ExchangeEvents): Promise<Exchange> {
    const thread = new Worker(new URL("./exchange-thread.js", import.meta.url));
    const port = await new Promise<number>((resolve, reject) => {
      thread.once("error", reject);
      thread.once("message", (message: FromExchange) => {
        if (message.kind === "listening") resolve(message.port);
      });
      thread.postMessage({ kind: "listen", host } satisfies ToExchange);
    });
    return new Exchange(thread, port, events);
  }

  private settle(epoch: bigint, error?: ServeError): void {
    if (this.joining?.epoch !== epoch) return;
    this.joining.settle(error);
    this.joining = undefined;
  }

  /** Resolves when every peer is connected and has the same plan; bounded by `deadlineMs`. */
  join(message: Omit<Extract<ToExchange, { kind: "join" }>, "kind">): Promise<void> {
    this.joining?.settle(new ServeError("STALE_EPOCH", `epoch ${message.epoch} came in between`));
    return new Promise((resolve, reject) => {
      this.joining = {
        epoch: message.epoch,
        settle: (error) => (error === undefined ? resolve() : reject(error)),
      };
      this.thread.postMessage({ kind: "join", ...message } satisfies ToExchange);
    });
  }

  leave(): void {
    this.thread.postMessage({ kind: "leave" } satisfies ToExchange);
  }

  /** The thread ends by itself, what native code holds of it given back; it is cut off only when that takes long. */
  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.thread.once("exit", () => resolve()));
    this.thread.postMessage({ kind: "close" } satisfies ToExchange);
    const timer = setTimeout(() => void this.thread.terminate(), CLOSE_DEADLINE_MS);
    await ended;
    clearTimeout(timer);
  }
}
