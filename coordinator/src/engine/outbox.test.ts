import assert from "node:assert/strict";
import { test } from "node:test";
import { Outbox } from "./outbox.js";

test("Outbox: calls wait for the flush and come in order, once", () => {
  const outbox = new Outbox();
  const said: string[] = [];
  outbox.add(() => said.push("first"));
  outbox.add(() => said.push("second"));
  assert.deepEqual(said, []);
  outbox.flush();
  outbox.flush();
  assert.deepEqual(said, ["first", "second"]);
});

test("Outbox: a call that adds another and flushes does not overtake those before it", () => {
  const outbox = new Outbox();
  const said: string[] = [];
  outbox.add(() => {
    said.push("slow reader");
    outbox.add(() => said.push("its end"));
    outbox.flush();
  });
  outbox.add(() => said.push("its other choice"));
  outbox.flush();
  assert.deepEqual(said, ["slow reader", "its other choice", "its end"]);
});

test("Outbox: the time spent is told once", () => {
  const outbox = new Outbox();
  outbox.add(() => {
    const end = performance.now() + 2;
    while (performance.now() < end);
  });
  outbox.flush();
  assert.ok(outbox.takeSpentMs() >= 2);
  assert.equal(outbox.takeSpentMs(), 0);
});
