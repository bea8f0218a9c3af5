/** Readers of streams that are full when a test says so, for tests of the log and of the streams. */
import assert from "node:assert/strict";
import type { Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Reader } from "./event-log.js";

export class TestReader implements Reader {
  /** Indices of what was taken. */
  readonly got: number[] = [];
  /** Of the stream, from its first event. */
  token = "";
  readonly abort = new AbortController();
  /** How the reading ended. */
  outcome: { error: unknown } | undefined;
  private empty: (() => void) | undefined;

  /** `room`: events that are taken before the connection is full. */
  constructor(private room: number) {}

  get signal(): Reader["signal"] {
    return this.abort.signal;
  }

  get full(): boolean {
    return this.room === 0;
  }

  take = (event: Event): boolean => {
    assert.ok(!this.full, "a full reader is given an event");
    assert.equal(this.outcome, undefined);
    this.got.push(Number(event.index));
    if (event.kind.case === "started") this.token = event.kind.value.resumeToken;
    this.room--;
    return !this.full;
  };

  drained = (): Promise<void> => {
    assert.ok(this.full && this.empty === undefined);
    return new Promise((resolve) => (this.empty = resolve));
  };

  /** The connection takes so many more. */
  drain(room: number): void {
    if (!this.full) return;
    this.room = room;
    this.empty?.();
    this.empty = undefined;
  }

  /** Notes how `reading` ends. */
  follow(reading: Promise<void>): void {
    reading.then(
      () => (this.outcome = { error: undefined }),
      (error: unknown) => (this.outcome = { error }),
    );
  }
}

/** Lets promises that are settled be heard of. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
