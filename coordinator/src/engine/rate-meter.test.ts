import assert from "node:assert/strict";
import { test } from "node:test";
import { RateMeter } from "./rate-meter.js";

test("rate meter: what nothing is known of takes a second", () => {
  const meter = new RateMeter();
  assert.equal(meter.delayMs(1, 0), 1000);
  meter.add(1, 5);
  assert.equal(meter.delayMs(1e6, 1e6), 1000);
});

test("rate meter: the delay is the amount over the measured rate, within 50 ms and a minute", () => {
  const meter = new RateMeter();
  for (let i = 0; i <= 10; i++) meter.add(3, 100 * i);
  assert.equal(meter.delayMs(30, 1000), 1000);
  assert.equal(meter.delayMs(3, 1000), 100);
  // Nothing has passed since: the rate falls.
  assert.equal(meter.delayMs(30, 2000), 2000);
  assert.equal(meter.delayMs(0.1, 1000), 50);
  assert.equal(meter.delayMs(1e9, 1000), 60_000);
});

test("rate meter: events at one moment, and events of nothing, give a delay within the bounds", () => {
  const meter = new RateMeter();
  for (let i = 0; i < 5; i++) meter.add(0, 7);
  assert.equal(meter.delayMs(1, 7), 60_000);
  for (let i = 0; i < 5; i++) meter.add(1, 7);
  assert.equal(meter.delayMs(1, 7), 50);
});

test("rate meter: old events are forgotten after 256 others", () => {
  const meter = new RateMeter();
  for (let i = 0; i < 256; i++) meter.add(1, 60_000 * i);
  const start = 60_000 * 256;
  for (let i = 0; i < 256; i++) meter.add(1, start + 100 * i);
  assert.equal(meter.delayMs(1, start + 100 * 255), 100);
});

test("rate meter: time without work is left out", () => {
  const meter = new RateMeter();
  for (let i = 0; i <= 10; i++) meter.add(1, 100 * i);
  meter.work(true, 1000);
  assert.equal(meter.delayMs(10, 1000), 1000);
  meter.work(false, 1000);
  meter.work(false, 2000);
  meter.work(true, 3_601_000);
  assert.equal(meter.delayMs(10, 3_601_000), 1000);
  meter.work(true, 3_602_000);
  assert.equal(meter.delayMs(10, 3_602_000), 2000);
});
