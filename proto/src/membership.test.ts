import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  chooseLease,
  groupNameProblem,
  HeartbeatBook,
  heartbeatIntervalProblem,
  MAX_HEARD,
  RETURN_GRACE_MS,
  SILENT_INTERVALS,
  type Entry,
  type Holder,
  type LeaseMove,
} from "./membership.js";

const INTERVAL = 500;
const LIMIT = SILENT_INTERVALS * INTERVAL;

test("groupNameProblem: 1 to 32 letters, digits, _ and -", () => {
  for (const name of ["default", "a", "A_9-z", "x".repeat(32)])
    assert.equal(groupNameProblem(name), undefined, name);
  for (const name of ["", "x".repeat(33), "a.b", "a b", "a*", "a>", "ä", "a\n"])
    assert.match(groupNameProblem(name) ?? "", /must be 1 to 32 of/, name);
});

test("heartbeatIntervalProblem: whole milliseconds from 50 to 60000", () => {
  assert.deepEqual([50, 500, 60_000].map(heartbeatIntervalProblem), Array(3).fill(undefined));
  for (const bad of [49, 60_001, 100.5, NaN])
    assert.match(heartbeatIntervalProblem(bad) ?? "", /^heartbeat-ms: .*from 50 to 60000/);
});

/** A book whose owner's heartbeats came back at every interval up to `untilMs`. */
function listening(untilMs: number, heard: Record<string, number> = {}): HeartbeatBook {
  const book = new HeartbeatBook(INTERVAL);
  for (let nowMs = 0; nowMs <= untilMs; nowMs += INTERVAL) {
    for (const [id, lastMs] of Object.entries(heard))
      if (nowMs <= lastMs) book.heard(id, { intervalMs: INTERVAL, nowMs });
    book.echo(nowMs);
  }
  return book;
}

test("judge: alive up to the limit, silent beyond it", () => {
  assert.equal(listening(1000 + LIMIT, { a: 1000 }).judge("a", INTERVAL), "alive");
  assert.equal(listening(1500 + LIMIT, { a: 1000 }).judge("a", INTERVAL), "silent");
});

test("judge: one that was never heard is unknown until the limit is over", () => {
  const untilMs = RETURN_GRACE_MS + LIMIT;
  assert.equal(listening(untilMs).judge("ghost", INTERVAL), "unknown");
  assert.equal(listening(untilMs + INTERVAL).judge("ghost", INTERVAL), "silent");
  assert.equal(listening(untilMs + INTERVAL).judge("ghost", 4 * INTERVAL), "unknown");
});

test("judge: without own echoes nobody is silent, and afterwards everybody has the whole time again", () => {
  const book = listening(2000, { a: 2000 });
  assert.equal(book.judge("a", INTERVAL), "alive");
  const backMs = 2000 + 100 * LIMIT;
  const endMs = backMs + RETURN_GRACE_MS + LIMIT;
  for (let nowMs = backMs; nowMs <= endMs; nowMs += INTERVAL) {
    book.echo(nowMs);
    assert.equal(book.judge("a", INTERVAL), "alive", `${nowMs}`);
  }
  book.echo(endMs + INTERVAL);
  assert.equal(book.judge("a", INTERVAL), "silent");
});

test("judge: one that speaks seldom has its own limit, within bounds", () => {
  const book = new HeartbeatBook(INTERVAL);
  book.heard("seldom", { intervalMs: 4000, nowMs: 0 });
  book.heard("never", { intervalMs: 1e12, nowMs: 0 });
  for (let nowMs = 0; nowMs <= 25_000; nowMs += INTERVAL) book.echo(nowMs);
  assert.equal(book.judge("seldom", INTERVAL), "alive");
  for (let nowMs = 25_500; nowMs <= 361_500; nowMs += INTERVAL) book.echo(nowMs);
  assert.deepEqual([book.judge("seldom", 1), book.judge("never", 1)], ["silent", "silent"]);
});

test("heard: the number of processes is bounded, silent ones make room", () => {
  const book = new HeartbeatBook(INTERVAL);
  const said = { intervalMs: INTERVAL, nowMs: 0 };
  for (let i = 0; i < MAX_HEARD; i++) assert.ok(book.heard(`w${i}`, said));
  assert.equal(book.heard("one more", said), false);
  const silentMs = RETURN_GRACE_MS + LIMIT + INTERVAL;
  for (let nowMs = 0; nowMs <= silentMs; nowMs += INTERVAL) book.echo(nowMs);
  assert.equal(book.heard("one more", { ...said, nowMs: silentMs }), true);
  assert.deepEqual(book.alive(), ["one more"]);
});

function leases(...holders: (string | undefined)[]): Map<number, Entry<Holder>> {
  return new Map(
    holders.map((workerId, rank) => [
      rank,
      {
        revision: 10 + rank,
        value: workerId === undefined ? undefined : { workerId, heartbeatIntervalMs: INTERVAL },
      },
    ]),
  );
}

const cases: [
  string,
  Map<number, Entry<Holder>>,
  { preferred?: number; dead?: string },
  LeaseMove,
][] = [
  ["an empty bucket", new Map(), {}, { kind: "take", rank: 0, revision: 0 }],
  [
    "the lowest free",
    leases("a", undefined, undefined),
    {},
    { kind: "take", rank: 1, revision: 11 },
  ],
  ["a new size", leases("a"), {}, { kind: "take", rank: 1, revision: 0 }],
  [
    "the preferred",
    leases("a", undefined, undefined),
    { preferred: 2 },
    { kind: "take", rank: 2, revision: 12 },
  ],
  [
    "preferred, not free",
    leases("a", undefined, "b"),
    { preferred: 2 },
    { kind: "take", rank: 1, revision: 11 },
  ],
  ["all held", leases("a", "b", "c"), {}, { kind: "wait" }],
  [
    "a silent holder",
    leases("a", "b", "c"),
    { dead: "c" },
    { kind: "take", rank: 2, revision: 12 },
  ],
  ["an own one", leases("a", "me", undefined), {}, { kind: "keep", rank: 1 }],
  ["two own ones", leases("me", "a", "me"), {}, { kind: "release", rank: 2, revision: 12 }],
  [
    "an own one beyond the size",
    leases("a", "b", "c", "me"),
    {},
    { kind: "release", rank: 3, revision: 13 },
  ],
];

for (const [name, held, { preferred, dead }, move] of cases)
  test(`chooseLease: ${name}`, () => {
    const judge = (id: string) => (id === dead ? "silent" : "alive");
    assert.deepEqual(chooseLease({ self: "me", size: 3, leases: held, judge, preferred }), move);
  });

/** The bucket: compare-and-set by revision. */
class Bucket {
  readonly entries = new Map<number, Entry<Holder>>();
  private revision = 0;
  write(rank: number, revision: number, value: Holder | undefined): boolean {
    if ((this.entries.get(rank)?.revision ?? 0) !== revision) return false;
    this.entries.set(rank, { revision: ++this.revision, value });
    return true;
  }
}

class SimulatedWorker {
  readonly book = new HeartbeatBook(INTERVAL);
  /** What it last read of the bucket; may be old. */
  seen = new Map<number, Entry<Holder>>();
  state: "runs" | "stopped" | "killed" = "runs";
  constructor(readonly id: string) {}
}

type Strike = { at: number; worker: number; kind: "kill" | "stop" | "go on" | "read late" };

/** Ranks by worker that runs and holds. */
function holders(bucket: Bucket, workers: SimulatedWorker[]): Map<string, number[]> {
  return new Map(
    workers
      .filter(({ state }) => state === "runs")
      .map(({ id }) => [
        id,
        [...bucket.entries].filter(([, e]) => e.value?.workerId === id).map(([rank]) => rank),
      ]),
  );
}

/** Decides by what was heard up to the last tick: the others' heartbeats come after the own. */
function tick(workers: SimulatedWorker[], bucket: Bucket, size: number, nowMs: number): void {
  const running = workers.filter(({ state }) => state === "runs");
  for (const { id, book, seen } of running) {
    book.echo(nowMs);
    const judge = book.judge.bind(book);
    const move = chooseLease({ self: id, size, leases: seen, judge });
    if (move.kind === "take") {
      const old = bucket.entries.get(move.rank)?.value?.workerId;
      const taken = bucket.write(move.rank, move.revision, {
        workerId: id,
        heartbeatIntervalMs: INTERVAL,
      });
      const robbed = running.some((worker) => worker.id === old);
      assert.ok(!(taken && robbed), `${id} took rank ${move.rank} of ${old}, who lives`);
    }
    if (move.kind === "release") bucket.write(move.rank, move.revision, undefined);
  }
  for (const listener of running)
    for (const { id } of running)
      if (id !== listener.id) listener.book.heard(id, { intervalMs: INTERVAL, nowMs });
}

const strikes: fc.Arbitrary<Strike[]> = fc.array(
  fc.record({
    at: fc.nat(60),
    worker: fc.nat(5),
    kind: fc.constantFrom("kill", "stop", "go on", "read late"),
  }),
  { maxLength: 12 },
);

test("leases: none is taken from a worker that lives; every rank that fell silent is taken when a spare lives", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 4),
      fc.integer({ min: 1, max: 6 }),
      strikes,
      (size, count, plan) => {
        const bucket = new Bucket();
        const workers = Array.from({ length: count }, (_, i) => new SimulatedWorker(`w${i}`));
        for (let step = 0; step < 100; step++) {
          const late = new Set<SimulatedWorker>();
          for (const { worker, kind } of plan.filter(({ at }) => at === step)) {
            const struck = workers[worker];
            if (struck === undefined || struck.state === "killed") continue;
            if (kind === "read late") late.add(struck);
            else
              struck.state = ({ kill: "killed", stop: "stopped", "go on": "runs" } as const)[kind];
          }
          for (const worker of workers)
            if (!late.has(worker)) worker.seen = new Map(bucket.entries);
          tick(workers, bucket, size, step * INTERVAL);
        }
        const held = [...holders(bucket, workers).values()];
        assert.ok(held.every((ranks) => ranks.length <= 1));
        assert.equal(held.flat().length, Math.min(size, held.length));
      },
    ),
    { numRuns: 300, seed: 5 },
  );
});
