/** Streams that are kept to be resumed: whose they are, how long, and how many. Requests are run by the tests. */
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { fileURLToPath } from "node:url";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { ServeError } from "@tessera/proto";
import { GenerateRequestSchema } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Caller } from "../access/caller.js";
import type { RequestEvents } from "../engine/active.js";
import { preparedOf } from "../engine/prepared.fixture.js";
import type { Asked } from "../engine/requests.js";
import { loadTokenizer } from "../request/index.js";
import { NO_TRACING } from "../trace/trace.js";
import { settled, TestReader } from "./reader.fixture.js";
import { STREAM_LIMITS, Streams, type StreamLimits } from "./streams.js";

mock.timers.enable({ apis: ["setTimeout"] });
const GRACE_MS = 1000;
const tokenizer = await loadTokenizer(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);
const timings = {
  queueMs: 0,
  encodeMs: 0,
  firstTokenMs: 0,
  totalMs: 0,
  completionTokens: 0,
  cachedTokens: 0,
};

/** A request under way, driven by the test. Ends by itself when it is aborted. */
class Running {
  token = "";
  /** Events so far. */
  made = 0;
  ended = false;

  constructor(
    readonly asked: Asked,
    private readonly events: RequestEvents,
    private readonly settle: (error?: ServeError) => void,
  ) {
    asked.signal.addEventListener("abort", () => this.fail(ServeError.from(asked.signal.reason)));
  }

  start(): void {
    this.events.started();
    this.made++;
  }
  piece(length: number): void {
    if (this.ended) return;
    this.made++;
    this.events.piece(0, { text: "x".repeat(length + 1), tokens: [], finish: undefined });
  }
  done(): void {
    if (this.ended) return;
    this.made++;
    this.events.done(timings);
    this.end();
  }
  fail(error: ServeError): void {
    if (!this.ended) this.end(error);
  }
  private end(error?: ServeError): void {
    this.ended = true;
    this.settle(error);
  }
}

class World {
  readonly running: Running[] = [];
  readonly streams: Streams;
  resumed = 0;
  refuse: ServeError | undefined;

  constructor(limits: Partial<StreamLimits> = {}) {
    this.streams = new Streams(
      {
        context: { servedName: "m", tokenizer },
        tracing: NO_TRACING,
        metrics: { resumed: { inc: () => void this.resumed++ } },
        requests: { run: (asked, eventsOf) => this.run(asked, eventsOf) },
      },
      { ...STREAM_LIMITS, graceMs: GRACE_MS, ...limits },
    );
  }

  private async run(
    asked: Asked,
    eventsOf: (prepared: ReturnType<typeof preparedOf>) => RequestEvents,
  ): Promise<void> {
    if (this.refuse !== undefined) throw this.refuse;
    const prepared = preparedOf({
      requestId: asked.message.requestId ?? "",
      returnTokenIds: false,
    });
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: ServeError) => (error === undefined ? resolve() : reject(error));
      const running = new Running(asked, eventsOf(prepared), settle);
      this.running.push(running);
      running.start();
    });
  }

  generate(
    of: MessageInitShape<typeof GenerateRequestSchema>,
    tenant = "a",
    room = Infinity,
  ): TestReader {
    const reader = new TestReader(room);
    const message = create(GenerateRequestSchema, { resume: true, ...of });
    reader.follow(this.streams.generate(message, callerOf(tenant), reader));
    return reader;
  }
  resume(
    ask: { requestId: string; resumeToken: string; fromIndex: bigint },
    tenant = "a",
    room = Infinity,
  ): TestReader {
    const reader = new TestReader(room);
    reader.follow(this.streams.resume(ask, callerOf(tenant), reader));
    return reader;
  }
}

function callerOf(tenant: string): Caller {
  return { tenant } as Caller;
}

function codeOf({ outcome }: TestReader): string | undefined {
  assert.ok(outcome !== undefined, "the reading has ended");
  return outcome.error === undefined ? undefined : ServeError.from(outcome.error).code;
}

const LEFT = new ServeError("ABORTED", "the reader left");

test("grace: a stream without a reader goes on for so long, then its request is aborted and it is gone", async () => {
  const world = new World();
  const reader = world.generate({ requestId: "r" });
  const [running] = world.running;
  reader.abort.abort(LEFT);
  await settled();
  mock.timers.tick(GRACE_MS - 1);
  assert.equal(running?.asked.signal.aborted, false);
  const again = world.resume({ requestId: "r", resumeToken: reader.token, fromIndex: 1n });
  mock.timers.tick(2 * GRACE_MS);
  assert.equal(running.asked.signal.aborted, false, "a reader keeps it");
  again.abort.abort(LEFT);
  await settled();
  mock.timers.tick(GRACE_MS);
  assert.equal(ServeError.from(running.asked.signal.reason).code, "ABORTED");
  assert.deepEqual([world.streams.keptCount, world.streams.keptBytes], [0, 0]);
  const late = world.resume({ requestId: "r", resumeToken: reader.token, fromIndex: 1n });
  await settled();
  assert.equal(codeOf(late), "REQUEST_NOT_FOUND");
});

test("grace: a stream that has ended is kept for so long, and longer when it is read again", async () => {
  const world = new World();
  const reader = world.generate({ requestId: "r" });
  world.running[0]?.done();
  await settled();
  mock.timers.tick(GRACE_MS - 1);
  const ask = { requestId: "r", resumeToken: reader.token, fromIndex: 0n };
  const again = world.resume(ask);
  await settled();
  assert.deepEqual([again.got, codeOf(again)], [[0, 1], undefined]);
  mock.timers.tick(GRACE_MS - 1);
  assert.equal(world.streams.keptCount, 1);
  mock.timers.tick(1);
  assert.deepEqual([world.streams.keptCount, world.streams.keptBytes], [0, 0]);
  assert.equal(world.resumed, 1);
});

test("failure: it is told behind the last event, to whoever reads the stream", async () => {
  const world = new World();
  const reader = world.generate({ requestId: "r" });
  world.running[0]?.piece(1);
  world.running[0]?.fail(new ServeError("RANK_LOST", "rank 1"));
  const ask = { requestId: "r", resumeToken: reader.token, fromIndex: 1n };
  await settled();
  const again = world.resume(ask);
  const once = world.generate({ requestId: "r" });
  await settled();
  for (const each of [reader, again, once]) assert.equal(codeOf(each), "RANK_LOST");
  assert.deepEqual([again.got, once.got], [[1], [0, 1]]);
});

test("failure: a request that is refused keeps nothing, and its id is free", async () => {
  const world = new World();
  world.refuse = new ServeError("OVERLOADED", "full");
  const refused = world.generate({ requestId: "r" });
  await settled();
  assert.deepEqual([codeOf(refused), world.streams.keptCount], ["OVERLOADED", 0]);
  world.refuse = undefined;
  world.generate({ requestId: "r", maxTokens: 7 });
  assert.equal(world.running.length, 1);
});

test("ids: are a tenant's own; the same body is the same stream, another or one without resume exists", async () => {
  const world = new World();
  const first = world.generate({ requestId: "r" });
  const second = world.generate({ requestId: "r" });
  world.generate({ requestId: "r" }, "b");
  assert.equal(world.running.length, 2);
  world.running[0]?.piece(1);
  assert.deepEqual(
    [first.got, second.got],
    [
      [0, 1],
      [0, 1],
    ],
  );
  const ask = { requestId: "r", resumeToken: first.token, fromIndex: 0n };
  const refused = [
    world.generate({ requestId: "r", maxTokens: 7 }),
    world.generate({ requestId: "r", resume: false }),
    world.resume(ask, "b"),
    world.resume({ ...ask, resumeToken: "" }),
  ];
  await settled();
  assert.deepEqual(refused.map(codeOf), [
    "REQUEST_EXISTS",
    "REQUEST_EXISTS",
    "REQUEST_NOT_FOUND",
    "REQUEST_NOT_FOUND",
  ]);
});

test("readers: one more than the limit is refused; a deadline of the last one is the request's", async () => {
  const world = new World({ readers: 2 });
  const first = world.generate({ requestId: "r" });
  const second = world.generate({ requestId: "r" });
  const third = world.generate({ requestId: "r" });
  await settled();
  assert.equal(codeOf(third), "OVERLOADED");
  const late = new ServeError("DEADLINE", "late");
  first.abort.abort(late);
  await settled();
  assert.equal(world.running[0]?.asked.signal.aborted, false);
  second.abort.abort(late);
  await settled();
  assert.equal(world.running[0].asked.signal.reason, late);
});

test("room: ended streams that nobody reads go first, the oldest before the others; without one a new one is refused", async () => {
  const world = new World({ keptStreams: 3 });
  const [a, b, c] = ["a", "b", "c"].map((requestId) => world.generate({ requestId }));
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  const full = world.generate({ requestId: "d" });
  await settled();
  assert.equal(codeOf(full), "OVERLOADED");
  const slow = world.resume({ requestId: "a", resumeToken: a.token, fromIndex: 0n }, undefined, 1);
  for (const running of world.running.slice(0, 2)) running.done();
  c.abort.abort(LEFT);
  await settled();
  world.generate({ requestId: "e" });
  assert.equal(world.streams.keptCount, 3, "b has ended and is not read");
  const gone = world.resume({ requestId: "b", resumeToken: b.token, fromIndex: 0n });
  slow.drain(Infinity);
  await settled();
  assert.deepEqual(
    [codeOf(gone), codeOf(slow), slow.got],
    ["REQUEST_NOT_FOUND", undefined, [0, 1]],
  );
  assert.equal(world.running[2]?.asked.signal.aborted, false, "c runs on without a reader");
});

test("room: it is made of the streams of the tenant that has the most, whoever asks for it", async () => {
  const world = new World({ keptStreams: 3 });
  const own = world.generate({ requestId: "own" }, "b");
  for (const requestId of ["1", "2"]) world.generate({ requestId }, "a");
  for (const running of world.running) running.done();
  await settled();
  world.generate({ requestId: "3" }, "a");
  const ask = { requestId: "own", resumeToken: own.token, fromIndex: 0n };
  const again = world.resume(ask, "b");
  await settled();
  assert.deepEqual([codeOf(again), again.got], [undefined, [0, 1]]);
});

test("bytes: what one tenant leaves unread costs no stream of another", async () => {
  const world = new World({ allKeptBytes: 12_000 });
  const own = world.generate({ requestId: "own" }, "b", 1);
  const unread = ["1", "2"].map((requestId) => world.generate({ requestId }, "a", 1));
  const [mine, ...others] = world.running;
  for (let made = 0; made < 6; made++) for (const running of others) running.piece(300);
  const { keptBytes } = world.streams;
  assert.ok(keptBytes > 11_000 && keptBytes <= 12_000, `${keptBytes} bytes are kept`);
  for (let made = 0; made < 3; made++) mine?.piece(300);
  own.drain(Infinity);
  await settled();
  assert.deepEqual([own.outcome, mine?.ended, own.got], [undefined, false, [0, 1, 2, 3]]);
  assert.ok(world.streams.keptBytes <= 12_000);
  const ends = unread.map(({ outcome }) => outcome && ServeError.from(outcome.error).code);
  assert.deepEqual(ends.sort(), ["SLOW_READER", undefined], "one of them is enough");
  assert.equal(others.filter(({ ended }) => ended).length, 1);
});

test("a plain stream ends with its reader, and with too many unread events", async () => {
  const world = new World({ unreadEvents: 3 });
  const reader = world.generate({ resume: false });
  reader.abort.abort(LEFT);
  assert.equal(world.running[0]?.asked.signal.reason, LEFT);
  const slow = world.generate({ resume: false }, undefined, 1);
  for (let made = 1; made < 4; made++) world.running[1]?.piece(1);
  assert.equal(world.running[1]?.ended, false);
  world.running[1].piece(1);
  await settled();
  assert.equal(codeOf(slow), "SLOW_READER");
  assert.equal(ServeError.from(world.running[1].asked.signal.reason).code, "SLOW_READER");
  assert.equal(world.streams.keptCount, 0);
});

type Step =
  | { do: "generate"; room: number }
  | { do: "resume" | "leave" | "drain" | "done" | "fail"; which: number; room: number }
  | { do: "piece"; which: number; length: number }
  | { do: "time"; ms: number };

const which = fc.double({ min: 0, max: 0.999, noNaN: true });
const room = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant(Infinity));
const step = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant("generate"), room }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant("piece"), which, length: fc.nat(300) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("resume", "leave", "drain", "done", "fail"),
      which,
      room,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("time"), ms: fc.nat(GRACE_MS) }) },
) as fc.Arbitrary<Step>;

const TIGHT: Partial<StreamLimits> = {
  keptStreams: 4,
  readers: 3,
  keptEvents: 12,
  keptBytes: 6000,
  allKeptBytes: 12_000,
};
const LARGEST = 256 + 2 * 301;

interface Read {
  reader: TestReader;
  from: number;
  stream: number;
}

/** Streams under tight limits and all that was done to them. */
class Play {
  readonly world = new World(TIGHT);
  readonly reads: Read[] = [];
  private names = 0;

  private pick<T>(list: T[], which: number): T | undefined {
    return list[Math.floor(which * list.length)];
  }
  private tokenOf(stream: number): string {
    const first = this.reads.find((read) => read.stream === stream);
    return first?.reader.token ?? "";
  }

  do(step: Step): void {
    const { world, reads } = this;
    const open = reads.filter(({ reader }) => reader.outcome === undefined);
    if (step.do === "generate") {
      const before = world.running.length;
      const reader = world.generate({ requestId: `r${this.names++}` }, "a", step.room);
      if (world.running.length > before) reads.push({ reader, from: 0, stream: before });
    } else if (step.do === "piece") this.pick(world.running, step.which)?.piece(step.length);
    else if (step.do === "time") mock.timers.tick(step.ms);
    else if (step.do === "leave") this.pick(open, step.which)?.reader.abort.abort(LEFT);
    else if (step.do === "drain") this.pick(open, step.which)?.reader.drain(step.room);
    else if (step.do === "done") this.pick(world.running, step.which)?.done();
    else if (step.do === "fail")
      this.pick(world.running, step.which)?.fail(new ServeError("RANK_LOST", "rank 1"));
    else this.resume(this.pick(reads, step.which), step.room);
  }

  /** Goes on where a reader of it was. */
  private resume(read: Read | undefined, room: number): void {
    if (read === undefined) return;
    const requestId = this.world.running[read.stream]?.asked.message.requestId ?? "";
    const from = read.from + read.reader.got.length;
    const ask = { requestId, resumeToken: this.tokenOf(read.stream), fromIndex: BigInt(from) };
    const reader = this.world.resume(ask, "a", room);
    this.reads.push({ reader, from, stream: read.stream });
  }

  check(): void {
    const { streams, running } = this.world;
    assert.ok(streams.keptCount <= 4);
    assert.ok(streams.keptBytes <= 12_000 + LARGEST, `${streams.keptBytes} bytes are kept`);
    for (const { reader, from, stream } of this.reads) {
      assert.deepEqual(
        reader.got,
        Array.from(reader.got, (_, i) => from + i),
      );
      const code = reader.outcome === undefined ? "open" : codeOf(reader);
      if (code === undefined) {
        const made = running[stream]?.made;
        assert.equal(from + reader.got.length, made, "whoever comes to the end has all");
      }
      if (code === "open")
        assert.equal(
          running[stream]?.asked.signal.aborted === true && !reader.full,
          false,
          "no stream is given up while a reader takes its events",
        );
    }
  }
}

test("streams: whatever comes, readers get their events in order or an error, bounds hold, and nothing is left", async () => {
  const codes = new Map<string | undefined, number>();
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 20, maxLength: 120 }),
    async (steps) => {
      const play = new Play();
      for (const step of steps) {
        play.do(step);
        await settled();
        play.check();
      }
      for (const { reader } of play.reads)
        if (reader.outcome === undefined) reader.abort.abort(LEFT);
      await settled();
      mock.timers.tick(GRACE_MS);
      await settled();
      const { streams, running } = play.world;
      assert.deepEqual([streams.keptCount, streams.keptBytes], [0, 0]);
      assert.ok(
        running.every(({ ended }) => ended),
        "no request runs for nobody",
      );
      for (const { reader } of play.reads)
        codes.set(codeOf(reader), (codes.get(codeOf(reader)) ?? 0) + 1);
    },
  );
  await fc.assert(property, { numRuns: 800, seed: 9 });
  for (const code of [undefined, "ABORTED", "RANK_LOST", "SLOW_READER", "REQUEST_NOT_FOUND"])
    assert.ok((codes.get(code) ?? 0) > 20, `${code}: ${codes.get(code)}`);
});

test("close: what runs is aborted, nothing is kept", async () => {
  const world = new World();
  const reader = world.generate({ requestId: "r" });
  const other = world.generate({ requestId: "s" });
  other.abort.abort(LEFT);
  await settled();
  world.streams.close();
  await settled();
  assert.equal(codeOf(reader), "ABORTED");
  assert.ok(world.running.every(({ ended }) => ended));
  assert.deepEqual([world.streams.keptCount, world.streams.keptBytes], [0, 0]);
});
