import assert from "node:assert/strict";
import { test } from "node:test";
import { checkFigures, figure, goalText, parseLine } from "./figure.js";

const WHAT = { name: "a.b", value: 0.8, unit: "ratio", measure: "to the ceiling" };

test("figure: without a goal, goal and reached are null", () => {
  assert.deepEqual(figure(WHAT), { ...WHAT, goal: null, reached: null });
});

test("figure: a least and a greatest value are reached on their own side, and at the value itself", () => {
  assert.equal(figure(WHAT, { atLeast: 0.75 }).reached, true);
  assert.equal(figure(WHAT, { atLeast: 0.85 }).reached, false);
  assert.equal(figure(WHAT, { atMost: 0.75 }).reached, false);
  assert.equal(figure(WHAT, { atMost: 0.8 }).reached, true);
});

test("goalText: which way a goal points is known from the figure alone", () => {
  assert.equal(goalText(figure(WHAT, { atLeast: 0.75 })), "≥ 0.75");
  assert.equal(goalText(figure(WHAT, { atLeast: 0.85 })), "≥ 0.85");
  assert.equal(goalText(figure(WHAT, { atMost: 0.75 })), "≤ 0.75");
  assert.equal(goalText(figure(WHAT, { atMost: 1 })), "≤ 1");
  assert.equal(goalText(figure(WHAT)), "");
});

test("checkFigures: what was written is read back", () => {
  const list = [figure(WHAT), figure({ ...WHAT, name: "c" }, { atMost: 1 })];
  assert.deepEqual(checkFigures(JSON.parse(JSON.stringify(list))), list);
});

test("checkFigures: a wrong shape is refused by its place, a double name by the name", () => {
  const good = figure(WHAT);
  const bad: unknown[] = [
    { ...good, value: null },
    { ...good, value: "0.8" },
    { ...good, unit: undefined },
    { ...good, measure: "" },
    { ...good, goal: 1, reached: null },
    { ...good, goal: null, reached: true },
    { ...good, more: 1 },
    null,
  ];
  for (const entry of bad) assert.throws(() => checkFigures([entry]), /entry 0/);
  assert.throws(() => checkFigures({}), /must be a list/);
  assert.throws(() => checkFigures([good, good]), /a\.b stands twice/);
});

test("parseLine: a native line becomes a figure, with or without a goal", () => {
  assert.deepEqual(parseLine(JSON.stringify(WHAT)), figure(WHAT));
  const line = JSON.stringify({ ...WHAT, goal: 0.75 });
  assert.deepEqual(parseLine(line), figure(WHAT, { atLeast: 0.75 }));
});

test("parseLine: text, a missing field and a value that is no number are refused", () => {
  for (const line of ["warming up", "{}", JSON.stringify({ ...WHAT, value: "fast" })])
    assert.throws(() => parseLine(line), /no figure/);
});
