import assert from "node:assert/strict";
import { after, test } from "node:test";
import { EventLoopLag } from "./event-loop-lag.js";

const lag = new EventLoopLag();
after(() => lag.close());

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 1));
};

test("event loop lag: a turn that takes 200 ms is seen once, and is gone after it was taken", async () => {
  await turns(30);
  const end = performance.now() + 200;
  while (performance.now() < end);
  await turns(3);
  assert.ok(lag.takeP99() > 0.1);
  assert.equal(lag.takeP99(), 0);
});
