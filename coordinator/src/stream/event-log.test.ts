/** The log of a stream against its promises, over random interleavings of all that can happen to it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { ServeError } from "@tessera/proto";
import { EventSchema, type Event } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { EventLog, eventBytes, type LogLimits } from "./event-log.js";
import { settled, TestReader } from "./reader.fixture.js";

function delta(index: number, length: number): Event {
  const text = "x".repeat(length);
  return create(EventSchema, {
    index: BigInt(index),
    kind: { case: "delta", value: { text } },
  });
}

type Step =
  | { do: "append"; length: number }
  | { do: "join"; at: number; room: number }
  | { do: "drain"; which: number; room: number }
  | { do: "leave"; which: number }
  | { do: "shrink"; by: number };

const MAX_LENGTH = 300;
/** Between 0 and 1: which of several, or where between the first and the last. */
const share = fc.double({ min: 0, max: 0.999, noNaN: true });
const room = fc.oneof(fc.nat(4), fc.constant(Infinity));
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("append"), length: fc.nat(MAX_LENGTH) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("join"), at: share, room }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("drain"), which: share, room }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave"), which: share }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("shrink"), by: fc.nat(3000) }) },
);
const limits: fc.Arbitrary<LogLimits> = fc.record({
  events: fc.integer({ min: 1, max: 12 }),
  bytes: fc.integer({ min: 900, max: 8000 }),
});
const LARGEST = 256 + 2 * MAX_LENGTH;
const LEFT = new ServeError("ABORTED", "the reader left");

interface Read {
  reader: TestReader;
  from: number;
}

/** A log and all that was done to it. */
class World {
  readonly account = { bytes: 0 };
  readonly log: EventLog;
  readonly reads: Read[] = [];
  appended = 0;
  shrunk = false;

  constructor(
    readonly limits: LogLimits,
    readonly keep: boolean,
  ) {
    this.log = new EventLog(limits, keep ? this.account : undefined);
  }

  get open(): Read[] {
    return this.reads.filter(({ reader }) => reader.outcome === undefined);
  }
  private pick(which: number): TestReader | undefined {
    return this.open[Math.floor(which * this.open.length)]?.reader;
  }

  do(step: Step): void {
    const { log } = this;
    if (step.do === "append" && log.closed === undefined) {
      log.append(delta(this.appended++, step.length));
    } else if (step.do === "join") {
      const reader = new TestReader(step.room + 1);
      const from = log.begin + Math.floor(step.at * (log.end - log.begin + 1));
      reader.follow(log.read(reader, from));
      this.reads.push({ reader, from });
    } else if (step.do === "drain") this.pick(step.which)?.drain(step.room + 1);
    else if (step.do === "leave") this.pick(step.which)?.abort.abort(LEFT);
    else if (step.do === "shrink") {
      const before = log.begin;
      log.shrink(step.by);
      this.shrunk ||= log.begin > before;
    }
  }

  check(): void {
    const { log, limits, keep } = this;
    const events = Array.from({ length: log.end - log.begin }, (_, i) => log.at(log.begin + i));
    const bytes = events.reduce((sum, event) => sum + (event ? eventBytes(event) : NaN), 0);
    assert.equal(log.bytes, bytes);
    assert.equal(this.account.bytes, keep ? bytes : 0);
    assert.equal(log.end, this.appended);
    assert.ok(events.length <= limits.events + 1, "events pass their bound by one at most");
    assert.ok(bytes <= limits.bytes + LARGEST, "bytes pass their bound by one event at most");
    for (const { reader, from } of this.reads) {
      assert.deepEqual(
        reader.got,
        Array.from(reader.got, (_, i) => from + i),
      );
      if (reader.outcome === undefined) assert.ok(from + reader.got.length >= log.begin);
    }
    if (keep && !this.shrunk && log.begin > 0)
      assert.ok(
        events.length + 1 > limits.events || bytes + LARGEST > limits.bytes,
        "nothing is dropped for which there is room",
      );
    if (!keep && this.open.length > 0)
      assert.equal(
        log.begin,
        Math.min(...this.open.map(({ reader, from }) => from + reader.got.length)),
      );
  }

  /** Who takes everything is not too slow; others may have been. */
  checkEnds(close: ServeError | undefined): void {
    const { log } = this;
    for (const { reader, from } of this.reads) {
      assert.ok(reader.outcome !== undefined, "every reading ends");
      const { error } = reader.outcome;
      if (error === LEFT) continue;
      if (error instanceof ServeError && error.code === "SLOW_READER") continue;
      assert.equal(error, close);
      assert.equal(from + reader.got.length, log.end, "the end is told behind the last event");
    }
  }
}

test("log: every reader gets the events from its index on in order, or SLOW_READER, and the bounds hold", async () => {
  let slow = 0;
  let dropped = 0;
  let ends = 0;
  const property = fc.asyncProperty(
    limits,
    fc.boolean(),
    fc.array<Step>(step, { minLength: 10, maxLength: 80 }),
    fc.boolean(),
    async (limits, keep, steps, fails) => {
      const world = new World(limits, keep);
      for (const step of steps) {
        world.do(step);
        await settled();
        world.check();
      }
      const error = fails ? new ServeError("RANK_LOST", "rank 1") : undefined;
      world.log.close(error);
      await settled();
      world.check();
      for (const { reader } of world.open) reader.drain(Infinity);
      await settled();
      world.checkEnds(error);
      slow += Number(world.log.closed?.error?.code === "SLOW_READER");
      dropped += Number(world.log.begin > 0);
      ends += world.reads.filter(({ reader }) => reader.outcome?.error === error).length;
      assert.equal(world.log.readerCount, 0);
      world.log.release();
      assert.equal(world.account.bytes, 0);
    },
  );
  await fc.assert(property, { numRuns: 1500, seed: 7 });
  assert.ok(slow > 50 && dropped > 50 && ends > 50, `${slow} ${dropped} ${ends}`);
});

test("log: a reader that takes all is never SLOW_READER, however slow others are", async () => {
  let stopped = 0;
  const property = fc.asyncProperty(
    limits,
    fc.array<Step>(step, { minLength: 20, maxLength: 80 }),
    async (limits, steps) => {
      const world = new World(limits, true);
      const quick = new TestReader(Infinity);
      quick.follow(world.log.read(quick, 0));
      for (const step of steps) {
        world.do(step);
        await settled();
        assert.equal(quick.got.length, world.appended);
        assert.equal(quick.outcome, undefined);
      }
      world.log.close(undefined);
      await settled();
      assert.deepEqual(quick.outcome, { error: undefined });
      const errors = world.reads.map(({ reader }) => reader.outcome?.error);
      stopped += errors.filter((e) => e instanceof ServeError && e.code === "SLOW_READER").length;
    },
  );
  await fc.assert(property, { numRuns: 400, seed: 8 });
  assert.ok(stopped > 20, `${stopped}`);
});

test("log: unread events end it at the bound, for a full reader as for none that ever came back", async () => {
  for (const room of [1, 3]) {
    const log = new EventLog({ events: 4, bytes: 1 << 20 }, { bytes: 0 });
    const reader = new TestReader(room);
    reader.follow(log.read(reader, 0));
    let index = 0;
    while (log.closed === undefined) log.append(delta(index++, 1));
    await settled();
    assert.equal(index, room + 5);
    assert.equal((reader.outcome?.error as ServeError).code, "SLOW_READER");
    log.append(delta(index, 1));
    assert.equal(log.end, index, "nothing is taken after it");
  }
});

test("log: without a reader what was taken makes room for what is to come", async () => {
  const log = new EventLog({ events: 4, bytes: 1 << 20 }, { bytes: 0 });
  const reader = new TestReader(Infinity);
  reader.follow(log.read(reader, 0));
  for (let index = 0; index < 6; index++) log.append(delta(index, 1));
  reader.abort.abort(LEFT);
  for (let index = 6; index < 10; index++) log.append(delta(index, 1));
  assert.deepEqual([log.begin, log.end, log.closed], [6, 10, undefined]);
  log.append(delta(10, 1));
  assert.equal(log.closed?.error?.code, "SLOW_READER");
  const late = new TestReader(Infinity);
  late.follow(log.read(late, 6));
  await settled();
  assert.deepEqual(late.got, [6, 7, 8, 9, 10]);
  assert.equal((late.outcome?.error as ServeError).code, "SLOW_READER");
});

test("log: an index that is dropped or to come is refused, with what is kept", async () => {
  const log = new EventLog({ events: 2, bytes: 1 << 20 }, { bytes: 0 });
  const reader = new TestReader(Infinity);
  reader.follow(log.read(reader, 0));
  for (let index = 0; index < 5; index++) log.append(delta(index, 1));
  for (const from of [0, 2, 6, Infinity])
    await assert.rejects(log.read(new TestReader(1), from), {
      message: `from_index: is ${from}, kept are 3…5 (the last one is to come)`,
    });
  const left = new TestReader(1);
  left.abort.abort(LEFT);
  await assert.rejects(log.read(left, 3), LEFT);
  assert.equal(log.readerCount, 1);
});
