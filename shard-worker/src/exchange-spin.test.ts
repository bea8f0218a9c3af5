import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseSpinUs, Spin } from "./exchange-spin.js";

const HERE = ["10.0.0.1:1", "10.0.0.1:2"];
const APART = ["10.0.0.1:1", "10.0.0.2:1"];

test("chooseSpinUs: two cores a rank of this host are needed; ranks elsewhere do not count", () => {
  assert.equal(chooseSpinUs(undefined, { peers: HERE, rank: 0, cores: 3 }), 0);
  assert.ok(chooseSpinUs(undefined, { peers: HERE, rank: 1, cores: 4 }) > 0);
  assert.ok(chooseSpinUs(undefined, { peers: APART, rank: 0, cores: 2 }) > 0);
  assert.equal(chooseSpinUs(undefined, { peers: APART, rank: 1, cores: 1 }), 0);
});

test("chooseSpinUs: what was asked for goes before all, 0 too", () => {
  assert.equal(chooseSpinUs(50, { peers: HERE, rank: 0, cores: 1 }), 50);
  assert.equal(chooseSpinUs(0, { peers: HERE, rank: 0, cores: 64 }), 0);
});

/** Turns of the event loop until nothing but this function keeps it polling. */
function loopTurns(whileMs: number): Promise<number> {
  const start = performance.now();
  return new Promise((resolve) => {
    let turns = 0;
    const idle = () => {
      turns++;
      if (performance.now() - start < whileMs) setTimeout(idle, 1);
      else resolve(turns);
    };
    idle();
  });
}

test("Spin: polls for its time after a touch, then lets the loop sleep; 0 never polls", async () => {
  const before = performance.eventLoopUtilization();
  new Spin(20_000).touch();
  await loopTurns(10);
  const during = performance.eventLoopUtilization(before).utilization;
  await loopTurns(40);
  const rested = performance.eventLoopUtilization();
  new Spin(0).touch();
  await loopTurns(40);
  const after = performance.eventLoopUtilization(rested).utilization;
  assert.ok(during > 0.5, `busy for ${during} of the time while it spins`);
  assert.ok(after < 0.5, `busy for ${after} of the time afterwards`);
});
