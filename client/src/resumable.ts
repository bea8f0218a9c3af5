/** The events of a stream that outlives its connections: nothing doubled, nothing missing. */
import type { Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { TesseraError } from "./error.js";
import type { Reconnects } from "./reconnects.js";

/** Where a stream is taken up again. */
export interface StreamPlace {
  resumeToken: string;
  fromIndex: bigint;
}

/** The calls of one request, each at an address by its index. */
export interface StreamCalls {
  generate(address: number): AsyncIterable<Event>;
  resume(address: number, place: StreamPlace): AsyncIterable<Event>;
  /** Ends the request on the server; settles in bounded time. */
  abort(address: number): Promise<unknown>;
}

/** The events of one call, from index `from` on. @throws TesseraError OUT_OF_ORDER */
export async function* inOrder(events: AsyncIterable<Event>, from: bigint): AsyncGenerator<Event> {
  let next = from;
  for await (const event of events) {
    if (event.index !== next) throw TesseraError.outOfOrder(event.index, next);
    next++;
    yield event;
  }
}

class ResumableStream {
  private readonly place: StreamPlace = { resumeToken: "", fromIndex: 0n };
  private left: Promise<unknown> | undefined;
  /** Nothing runs on the server that would have to be ended: nothing yet, or no more. */
  private over = true;

  constructor(
    private readonly calls: StreamCalls,
    private readonly reconnects: Reconnects,
  ) {}

  private get started(): boolean {
    return this.place.fromIndex > 0n;
  }

  /** Nobody wants the rest: the server is told, or it would run on through the grace time. */
  readonly leave = (): Promise<unknown> => {
    if (!this.over)
      // What cannot be told ends with the grace time; what has ended by itself is not found.
      this.left = this.calls.abort(this.reconnects.address).catch(() => undefined);
    this.over = true;
    return this.left ?? Promise.resolve();
  };

  private open(): AsyncIterable<Event> {
    const { calls, place, reconnects } = this;
    this.over = false;
    return this.started
      ? calls.resume(reconnects.address, { ...place })
      : calls.generate(reconnects.address);
  }

  /** The events of one call; true after the last one of the stream. */
  private async *call(): AsyncGenerator<Event, boolean> {
    const { place, reconnects } = this;
    for await (const event of inOrder(this.open(), place.fromIndex)) {
      reconnects.progressed();
      place.fromIndex = event.index + 1n;
      if (event.kind.case === "started") place.resumeToken = event.kind.value.resumeToken;
      const last = event.kind.case === "done";
      this.over ||= last;
      yield event;
      if (last) return true;
    }
    return false;
  }

  private async failed(error: unknown): Promise<void> {
    try {
      await this.reconnects.afterFailure(error, {
        started: this.started,
        resumable: !this.started || this.place.resumeToken !== "",
      });
    } catch (failure) {
      // The server says of its own accord that the request has failed, or cannot be reached.
      this.over ||= TesseraError.from(failure).code !== "OUT_OF_ORDER";
      throw failure;
    }
  }

  async *events(): AsyncGenerator<Event> {
    try {
      for (;;) {
        this.reconnects.checkSignal();
        try {
          if (yield* this.call()) return;
        } catch (error) {
          await this.failed(error);
          continue;
        }
        throw TesseraError.cutShort(this.place.fromIndex);
      }
    } finally {
      await this.leave();
    }
  }
}

/** Leaving the loop, or the signal, ends the request on the server too. @throws TesseraError */
export async function* resumable(
  calls: StreamCalls,
  reconnects: Reconnects,
  signal: AbortSignal | undefined,
): AsyncGenerator<Event> {
  const stream = new ResumableStream(calls, reconnects);
  const leave = () => void stream.leave();
  signal?.addEventListener("abort", leave, { once: true });
  try {
    yield* stream.events();
  } finally {
    signal?.removeEventListener("abort", leave);
  }
}
