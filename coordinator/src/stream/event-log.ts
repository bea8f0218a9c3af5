/** Events of one stream, from which each reader takes at its own pace. Bounded; old events go first. */
import assert from "node:assert/strict";
import { ServeError } from "@tessera/proto";
import type { Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { TraceCarrier } from "../trace/trace.js";

/** Who reads a stream: a call of a front. */
export interface Reader {
  /** In rising index. False: the connection is full, nothing more before `drained`. */
  take(event: Event): boolean;
  /** Settles when the connection takes events again. Never asked for otherwise. */
  drained(): Promise<void>;
  /** The call has ended: its client left (ABORTED), or its time is up (DEADLINE). */
  signal: AbortSignal;
  /** What the call's headers say of the trace that it belongs to. */
  carrier?: TraceCarrier;
}

export interface LogLimits {
  events: number;
  /** Estimated, as they lie in memory. */
  bytes: number;
}

/** An event's size in memory, roughly. */
export function eventBytes({ kind }: Event): number {
  const base = 256;
  if (kind.case === "started")
    return base + 8 * kind.value.promptTokenIds.length + logprobBytes(kind.value.promptLogprobs);
  if (kind.case !== "delta") return base;
  const { text, tokenIds, logprobs, toolCalls } = kind.value;
  const calls = toolCalls.reduce((sum, call) => sum + 128 + 2 * call.arguments.length, 0);
  return base + 2 * text.length + 8 * tokenIds.length + logprobBytes(logprobs) + calls;
}

function logprobBytes(list: { top: unknown[] }[]): number {
  return list.reduce((sum, { top }) => sum + 256 * (1 + top.length), 0);
}

/** One reader's place. */
class Cursor {
  private full = false;
  private settle: { resolve(): void; reject(error: unknown): void } | undefined;
  readonly ended: Promise<void>;

  constructor(
    private readonly log: EventLog,
    private readonly reader: Reader,
    public next: number,
  ) {
    this.ended = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
  }

  /** Hands on what is there. */
  pump(): void {
    while (!this.full && this.settle !== undefined && this.next < this.log.end) {
      const event = this.log.at(this.next);
      if (event === undefined)
        return this.stop(
          new ServeError("SLOW_READER", `event ${this.next} was not taken before it was dropped`),
        );
      this.next++;
      if (!this.reader.take(event)) this.wait();
    }
    if (!this.full && this.next === this.log.end && this.log.closed !== undefined)
      this.stop(this.log.closed.error);
  }

  private wait(): void {
    this.full = true;
    void this.reader.drained().then(() => {
      this.full = false;
      this.pump();
      this.log.trim();
    });
  }

  /** With an error, or at the end of the stream. */
  stop(error: unknown): void {
    const { settle } = this;
    this.settle = undefined;
    if (error === undefined) settle?.resolve();
    else settle?.reject(error);
  }
}

export class EventLog {
  private events: Event[] = [];
  private first = 0;
  private held = 0;
  private readonly cursors = new Set<Cursor>();
  closed: { error: ServeError | undefined } | undefined;

  /** `keep`: events stay when all readers have taken them, as far as the limits allow. */
  constructor(
    private readonly limits: LogLimits,
    private readonly keep: boolean,
  ) {}

  get begin(): number {
    return this.first;
  }
  get end(): number {
    return this.first + this.events.length;
  }
  get bytes(): number {
    return this.held;
  }
  get readerCount(): number {
    return this.cursors.size;
  }
  at(index: number): Event | undefined {
    return this.events[index - this.first];
  }

  append(event: Event): void {
    assert(this.closed === undefined, "an event after the end");
    this.events.push(event);
    this.held += eventBytes(event);
    for (const cursor of this.cursors) cursor.pump();
    this.trim();
  }

  /** Events that someone still has to take are too many. */
  get overfull(): boolean {
    return this.events.length > this.limits.events || this.held > this.limits.bytes;
  }

  /** Drops what every reader has taken: all of it, or what passes the limits. */
  trim(): void {
    if (this.cursors.size === 0) return;
    const taken = Math.min(...[...this.cursors].map(({ next }) => next));
    let count = 0;
    let { held } = this;
    const over = (length: number) => length > this.limits.events || held > this.limits.bytes;
    while (this.first + count < taken && (!this.keep || over(this.events.length - count))) {
      const event = this.events[count++];
      if (event !== undefined) held -= eventBytes(event);
    }
    this.events.splice(0, count);
    this.first += count;
    this.held = held;
  }

  close(error: ServeError | undefined): void {
    this.closed ??= { error };
    for (const cursor of this.cursors)
      // Who does not read would never come to the end.
      if (error?.code === "SLOW_READER") cursor.stop(error);
      else cursor.pump();
  }

  /** Settles when `reader` has the last event, or its signal's reason comes. @throws ServeError */
  async read(reader: Reader, from: number): Promise<void> {
    if (from < this.first || from > this.end)
      throw ServeError.field(
        "from_index",
        `is ${from}, kept are ${this.first}…${this.end} (the last one is to come)`,
      );
    reader.signal.throwIfAborted();
    const cursor = new Cursor(this, reader, from);
    const leave = () => cursor.stop(reader.signal.reason);
    reader.signal.addEventListener("abort", leave, { once: true });
    this.cursors.add(cursor);
    try {
      cursor.pump();
      await cursor.ended;
    } finally {
      this.cursors.delete(cursor);
      reader.signal.removeEventListener("abort", leave);
    }
  }
}
