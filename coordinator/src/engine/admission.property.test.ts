/** Admission against a ledger of its own, over random lives of requests. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import fc from "fast-check";
import type { TenantPolicy } from "../access/caller.js";
import { Admission, type Admitted, type RequestCost } from "./admission.js";

const SEED = 20260707;
const EVENTS = 400;
const RUNS = 300;
const never = new AbortController().signal;

const LIMITS = { maxRequests: 8, maxQueuedTokens: 1000, maxTileBytes: 300, maxPreparing: 2 };
const POLICIES: Record<string, TenantPolicy> = {
  free: { weight: 1, limits: {} },
  few: { weight: 2, limits: { requests: 3, images: 4 } },
  slow: { weight: 1, limits: { tokensPerSecond: 300 } },
};

const event = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("enter" as const),
      tenant: fc.constantFrom("free", "few", "slow"),
      // Ids meet again.
      id: fc.integer({ min: 0, max: 40 }),
      promptTokens: fc.oneof(fc.integer({ min: 0, max: 400 }), fc.constantFrom(1000, 1001, 2500)),
      tileBytes: fc.integer({ min: 0, max: 160 }),
      images: fc.integer({ min: 0, max: 3 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom("settle" as const, "begun" as const, "used" as const, "leave" as const),
      /** Which of those that are there, or were. */
      which: fc.nat(1000),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("time" as const),
      ms: fc.integer({ max: 900, min: 0 }),
    }),
  },
);
type Event = typeof event extends fc.Arbitrary<infer T> ? T : never;
type Enter = Extract<Event, { kind: "enter" }>;

/** What the test knows of one place. */
interface Life {
  place: Admitted;
  key: string;
  images: number;
  cost: RequestCost;
  waits: boolean;
}

class World {
  nowMs = 0;
  /** Of refusals, by quota; of requests taken under "taken". */
  readonly seen = new Map<string, number>();
  private readonly all = new Admission(LIMITS, () => this.nowMs);
  private readonly lives: Life[] = [];
  private readonly gone: Admitted[] = [];

  private count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }
  private sum(of: (life: Life) => number, tenant?: string): number {
    return this.lives
      .filter(({ place }) => tenant === undefined || place.tenant === tenant)
      .reduce((sum, life) => sum + of(life), 0);
  }

  step(of: Event): void {
    if (of.kind === "time") this.nowMs += of.ms;
    else if (of.kind === "enter") this.enter(of);
    else this.change(of);
    this.check();
  }

  private try(of: Enter): Admitted | ServeError {
    const policy = POLICIES[of.tenant] ?? assert.fail();
    const { tenant, images, promptTokens, tileBytes } = of;
    try {
      return this.all.enter(
        { id: `r${of.id}`, tenant, policy, images, signal: never },
        { promptTokens, tileBytes },
      );
    } catch (error) {
      assert.ok(error instanceof ServeError);
      return error;
    }
  }

  private enter(of: Enter): void {
    const first = this.try(of);
    if (!(first instanceof ServeError)) return this.taken(of, first);
    this.refused(of, first);
    if (first.quota !== "tenant tokens") return;
    // What it is told to wait is enough, as far as this quota goes.
    this.nowMs += first.retryDelayMs ?? NaN;
    const again = this.try(of);
    if (!(again instanceof ServeError)) return this.taken(of, again);
    assert.notEqual(again.quota, "tenant tokens");
    this.refused(of, again);
  }

  private taken(of: Enter, place: Admitted): void {
    this.count("taken");
    const { promptTokens, tileBytes, images } = of;
    const key = `${of.tenant} ${of.id}`;
    assert.ok(!this.lives.some((life) => life.key === key), "an id twice");
    this.lives.push({ place, key, images, cost: { promptTokens, tileBytes }, waits: true });
  }

  /** The quota that is named is full, by the ledger. */
  private refused(of: Enter, { code, quota, retryDelayMs }: ServeError): void {
    if (code === "REQUEST_EXISTS") {
      this.count(code);
      assert.ok(this.lives.some(({ key }) => key === `${of.tenant} ${of.id}`));
      return;
    }
    assert.equal(code, "OVERLOADED");
    assert.ok((retryDelayMs ?? 0) > 0, `retry after ${retryDelayMs}`);
    this.count(quota ?? "");
    const full: Record<string, () => boolean> = {
      requests: () => this.lives.length === LIMITS.maxRequests,
      "queued tokens": () =>
        this.queued > 0 && this.queued + of.promptTokens > LIMITS.maxQueuedTokens,
      "tile bytes": () => this.tileBytes + of.tileBytes > LIMITS.maxTileBytes,
      "tenant requests": () => of.tenant === "few" && this.sum(() => 1, "few") === 3,
      "tenant images": () =>
        of.tenant === "few" && this.sum((l) => l.images, "few") + of.images > 4,
      "tenant tokens": () => of.tenant === "slow",
    };
    assert.ok(full[quota ?? ""]?.(), `${quota} is not full`);
  }

  private get queued(): number {
    return this.sum(({ waits, cost }) => (waits ? cost.promptTokens : 0));
  }
  private get tileBytes(): number {
    return this.sum(({ cost }) => cost.tileBytes);
  }

  private change(of: Exclude<Event, Enter | { kind: "time" }>): void {
    const index = of.which % Math.max(1, this.lives.length);
    const life = this.lives[index];
    if (life === undefined) return;
    const { place, cost } = life;
    if (of.kind === "settle" && life.waits) {
      life.cost = {
        promptTokens: Math.floor(cost.promptTokens * of.part),
        tileBytes: Math.floor(cost.tileBytes * of.part),
      };
      this.all.settle(place, { ...life.cost });
    } else if (of.kind === "begun") {
      this.all.begun(place);
      this.all.begun(place);
      life.waits = false;
    } else if (of.kind === "used") this.all.used(place, Math.floor(40 * of.part));
    else if (of.kind === "leave") this.leave(index);
  }

  private leave(index: number): void {
    for (const { place } of this.lives.splice(index, 1)) {
      this.all.leave(place);
      this.gone.push(place);
    }
    // Once more changes nothing, whoever has its id by now.
    const old = this.gone[Math.floor(this.gone.length / 2)];
    if (old !== undefined) this.all.leave(old);
  }

  private check(): void {
    const { size, queuedTokens } = this.all;
    assert.equal(size, this.lives.length);
    assert.ok(size <= LIMITS.maxRequests);
    assert.equal(queuedTokens, this.queued);
    const waiting = this.lives.filter(({ waits, cost }) => waits && cost.promptTokens > 0);
    assert.ok(
      queuedTokens >= 0 && (queuedTokens <= LIMITS.maxQueuedTokens || waiting.length === 1),
    );
    assert.ok(this.tileBytes <= LIMITS.maxTileBytes);
    assert.ok(this.sum(() => 1, "few") <= 3 && this.sum(({ images }) => images, "few") <= 4);
    this.all.audit();
  }

  /** Everyone leaves: nothing is held, and whoever comes alone is taken. */
  end(): void {
    while (this.lives.length > 0) this.leave(0);
    this.check();
    assert.equal(this.all.queuedTokens, 0);
    this.nowMs += 1e9;
    for (const tenant of ["free", "few", "slow"] as const) {
      const most = { promptTokens: LIMITS.maxQueuedTokens, tileBytes: LIMITS.maxTileBytes };
      const place = this.try({ kind: "enter", tenant, id: 0, images: 3, ...most });
      assert.ok(place instanceof Object && !(place instanceof ServeError), tenant);
      this.all.leave(place);
    }
    this.all.audit();
  }
}

test(`admission: over ${RUNS * EVENTS} random events sums are right, bounds are kept, refusals true, and all is given back`, () => {
  const seen = new Map<string, number>();
  let events = 0;
  fc.assert(
    fc.property(fc.array(event, { minLength: EVENTS, maxLength: EVENTS }), (all) => {
      const world = new World();
      for (const one of all) world.step(one);
      world.end();
      events += all.length;
      for (const [what, count] of world.seen) seen.set(what, (seen.get(what) ?? 0) + count);
    }),
    { numRuns: RUNS, seed: SEED },
  );
  assert.ok(events >= 100_000, `${events} events`);
  const quotas = ["requests", "queued tokens", "tile bytes"];
  const own = ["tenant requests", "tenant images", "tenant tokens"];
  for (const what of ["taken", "REQUEST_EXISTS", ...quotas, ...own])
    assert.ok((seen.get(what) ?? 0) > 100, `${what}: ${seen.get(what)} times`);
});
