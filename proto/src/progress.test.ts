import assert from "node:assert/strict";
import { test } from "node:test";
import { Progress } from "./progress.js";

/** A progress whose clock is set by hand. */
function at(): { progress: Progress; clock: { ms: number } } {
  const clock = { ms: 0 };
  return { progress: new Progress(() => clock.ms), clock };
}

test("progress: an idle process moves for ever", () => {
  const { progress, clock } = at();
  clock.ms = 1e9;
  assert.equal(progress.moving, true);
  assert.equal(progress.busy, false);
});

test("progress: work moves until its bound, and is stuck 1 ms after it until it ends", () => {
  const { progress, clock } = at();
  clock.ms = 500;
  const end = progress.begin(100);
  clock.ms = 600;
  assert.equal(progress.moving, true);
  clock.ms = 601;
  assert.equal(progress.moving, false);
  end();
  assert.equal(progress.moving, true);
});

test("progress: steps in flight that end one after another move, though each waits beyond its bound", () => {
  const { progress, clock } = at();
  const ends = [progress.begin(100), progress.begin(100), progress.begin(100)];
  for (const end of ends) {
    clock.ms += 90;
    assert.equal(progress.moving, true);
    end();
  }
  assert.equal(progress.busy, false);
});

test("progress: the shortest bound in flight counts", () => {
  const { progress, clock } = at();
  progress.begin(1000);
  const endShort = progress.begin(100);
  clock.ms = 101;
  assert.equal(progress.moving, false);
  endShort();
  clock.ms = 1101;
  assert.equal(progress.moving, true);
  clock.ms = 1102;
  assert.equal(progress.moving, false);
});

test("progress: tracked work that fails has ended", async () => {
  const { progress } = at();
  await assert.rejects(progress.track(100, () => Promise.reject(new Error("no"))));
  assert.equal(progress.busy, false);
});
