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
      assert(event !== undefined, `event ${this.next} is dropped before it is taken`);
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
    this.log.left(this);
    if (error === undefined) settle?.resolve();
    else settle?.reject(error);
  }
}

/** Bytes of all logs that share it. */
export interface ByteAccount {
  bytes: number;
}

export class EventLog {
  private events: Event[] = [];
  private first = 0;
  private held = 0;
  /** Up to here some reader that has left took all. */
  private reached = 0;
  private released = false;
  private readonly cursors = new Set<Cursor>();
  closed: { error: ServeError | undefined } | undefined;

  /** `keep`: events stay when all readers have taken them, as far as the limits allow; their bytes are on its account. */
  constructor(
    private readonly limits: LogLimits,
    private readonly keep: ByteAccount | undefined,
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
  /** Of a reader that has ended. */
  left(cursor: Cursor): void {
    if (!this.cursors.delete(cursor)) return;
    this.reached = Math.max(this.reached, cursor.next);
    this.trim();
  }
  at(index: number): Event | undefined {
    return this.events[index - this.first];
  }

  private hold(bytes: number): void {
    this.held += bytes;
    if (this.keep !== undefined) this.keep.bytes += bytes;
  }

  /** Nothing more is taken after readers were too slow, which closes the log, or after its release. */
  append(event: Event): void {
    if (this.released || this.closed?.error?.code === "SLOW_READER") return;
    assert(this.closed === undefined, "an event after the end");
    this.events.push(event);
    this.hold(eventBytes(event));
    for (const cursor of [...this.cursors]) cursor.pump();
    this.trim();
    if (this.overfull()) this.dropSlow();
    if (this.overfull()) this.close(this.slow());
  }

  private overfull(dropped = 0, bytes = 0): boolean {
    const { limits, events, held } = this;
    return events.length - dropped > limits.events || held - bytes > limits.bytes;
  }

  private slow(): ServeError {
    const { limits, events, held } = this;
    return new ServeError(
      "SLOW_READER",
      `${events.length} events of ${held} bytes are unread, limits are ${limits.events} and ${limits.bytes}`,
    );
  }

  /** Readers that are behind others do not end the stream for them. */
  private dropSlow(): void {
    const most = Math.max(...[...this.cursors].map(({ next }) => next));
    const behind = [...this.cursors].filter(({ next }) => next < most);
    behind.sort((a, b) => a.next - b.next);
    for (const cursor of behind) {
      if (!this.overfull()) return;
      cursor.stop(this.slow());
    }
  }

  /** Up to here every reader has taken all; without one, the reader that came farthest. */
  private get taken(): number {
    if (this.cursors.size === 0) return this.reached;
    return Math.min(...[...this.cursors].map(({ next }) => next));
  }

  /** Drops what every reader has taken: all of it, or what passes the limits. */
  trim(): void {
    this.drop((count, bytes) => this.keep === undefined || this.overfull(count, bytes));
  }

  /** Drops so many bytes of what every reader has taken, or as many as there are. */
  shrink(by: number): void {
    this.drop((_count, bytes) => bytes < by);
  }

  /** From the first event on, while `more` says so of what is dropped. */
  private drop(more: (count: number, bytes: number) => boolean): void {
    const most = this.taken - this.first;
    let count = 0;
    let bytes = 0;
    while (count < most && more(count, bytes)) {
      const event = this.events[count++];
      if (event !== undefined) bytes += eventBytes(event);
    }
    if (count === 0) return;
    this.events.splice(0, count);
    this.first += count;
    this.hold(-bytes);
  }

  /** Without a reader: what is held is given back, and nothing is taken or read any more. */
  release(): void {
    assert(this.cursors.size === 0, "a log is released while it is read");
    this.closed = { error: new ServeError("ABORTED", "nobody came back for the stream") };
    this.released = true;
    this.first = this.end;
    this.events = [];
    this.hold(-this.held);
  }

  close(error: ServeError | undefined): void {
    this.closed ??= { error };
    for (const cursor of [...this.cursors])
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
      this.trim();
      await cursor.ended;
    } finally {
      reader.signal.removeEventListener("abort", leave);
    }
  }
}
