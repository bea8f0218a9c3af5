import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { ServeError } from "@tessera/proto";
import { Admission, type Admitted, type Entering } from "./admission.js";

const never = new AbortController().signal;
const clock = { nowMs: 0 };
const admission = (limits = {}) =>
  new Admission(
    { maxRequests: 3, maxQueuedTokens: 1000, maxTileBytes: 100, maxPreparing: 2, ...limits },
    () => clock.nowMs,
  );
const policy = { weight: 1, limits: {} };
const enter = (all: Admission, id: string, tileBytes: number, more: Partial<Entering> = {}) =>
  all.enter(
    { id, tenant: "default", policy, images: 0, signal: never, ...more },
    { promptTokens: 10, tileBytes },
  );

test("admission: an id once, so many requests, so many bytes of tiles; places are given back", () => {
  const all = admission();
  const one = enter(all, "one", 60);
  assert.throws(() => enter(all, "one", 0), { code: "REQUEST_EXISTS" });
  assert.throws(() => enter(all, "two", 41), {
    code: "OVERLOADED",
    quota: "tile bytes",
    message: "pictures of 41 bytes beside 60 of other requests, limit 100",
    retryDelayMs: 1000,
  });
  all.settle(one, { promptTokens: 10, tileBytes: 20 });
  enter(all, "two", 80);
  enter(all, "three", 0);
  assert.throws(() => enter(all, "four", 0), {
    code: "OVERLOADED",
    quota: "requests",
    message: "3 requests run or wait, limit 3",
  });
  all.leave(one);
  all.leave(one);
  assert.equal(all.size, 2);
  enter(all, "one", 20);
  assert.throws(() => enter(all, "five", 1), { quota: "requests" });
});

test("admission: more images than a tenant may ever have is no matter of waiting", () => {
  const limited = { weight: 1, limits: { images: 2 } };
  assert.throws(() => enter(admission(), "one", 0, { policy: limited, images: 3 }), {
    code: "INVALID_ARGUMENT",
    message: "messages: have 3 images, default may have 2 at once",
  });
});

/** Work whose end is in the test's hands. */
function handled(all: Admission, place: Admitted) {
  let end: () => void = () => undefined;
  const state = { running: false, end: () => end() };
  const done = all.prepare(place, () => {
    state.running = true;
    return new Promise<void>((resolve) => (end = resolve));
  });
  return { state, done };
}

test("admission: so many prepare at once; the next waits for its turn, first come first served", async () => {
  const all = admission({ maxRequests: 9 });
  const works = ["a", "b", "c", "d"].map((id) => handled(all, enter(all, id, 0)));
  const running = () => works.map(({ state }) => state.running);
  await new Promise(setImmediate);
  assert.deepEqual(running(), [true, true, false, false]);
  works[1]?.state.end();
  await works[1]?.done;
  await new Promise(setImmediate);
  assert.deepEqual(running(), [true, true, true, false]);
  for (const { state } of works) state.end();
  await works[2]?.done;
  await new Promise(setImmediate);
  for (const { state, done } of works) {
    state.end();
    await done;
  }
});

test("admission: who is aborted while it waits leaves the line; a failure gives its turn on", async () => {
  const all = admission({ maxPreparing: 1 });
  const first = handled(all, enter(all, "first", 0));
  const second = enter(all, "second", 0);
  const waiting = handled(all, second);
  const third = all.prepare(enter(all, "third", 0), () => Promise.reject(new Error("bad")));
  second.abort(new ServeError("ABORTED", "ended"));
  await assert.rejects(waiting.done, { code: "ABORTED" });
  assert.equal(waiting.state.running, false);
  first.state.end();
  await first.done;
  await assert.rejects(third, /bad/);
  const last = await all.prepare(second, () => Promise.resolve(7)).catch((error: unknown) => error);
  assert.equal(last, 7);
});

test("admission: a request that has left is not held by the listeners of its signal, nor by its call's", async () => {
  const all = admission({ maxRequests: 9 });
  const call = new AbortController();
  const place = enter(all, "one", 0, { signal: call.signal });
  let told = 0;
  place.signal.addEventListener("abort", () => told++);
  assert.equal(getEventListeners(call.signal, "abort").length, 1);
  all.leave(place);
  assert.equal(getEventListeners(call.signal, "abort").length, 0);
  call.abort(new ServeError("ABORTED", "late"));
  assert.equal(told, 0);
  const gone = (() => {
    const other = enter(all, "two", 0, { signal: new AbortController().signal });
    const held = { bytes: 1 };
    other.signal.addEventListener("abort", () => held.bytes++);
    all.leave(other);
    return new WeakRef(held);
  })();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await new Promise(setImmediate);
  collect();
  assert.equal(gone.deref(), undefined);
});

test("admission: a place follows its call, also one that has ended already", () => {
  const all = admission({ maxRequests: 9 });
  const reason = new ServeError("ABORTED", "left");
  const call = new AbortController();
  const place = enter(all, "one", 0, { signal: call.signal });
  call.abort(reason);
  assert.equal(place.signal.reason, reason);
  assert.equal(enter(all, "two", 0, { signal: call.signal }).signal.reason, reason);
});
