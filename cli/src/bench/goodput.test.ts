import assert from "node:assert/strict";
import { test } from "node:test";
import { isGood, parseObjective } from "./goodput.js";
import { answerOf } from "./records.fixture.js";

const OBJECTIVE = { ttft: 500, itl: 100, tpot: 50, e2el: 5000 };

for (const [what, change, good] of [
  ["on every limit", { ttftMs: 500, itlP99Ms: 100, tpotMs: 50, e2elMs: 5000 }, true],
  ["over one for the first token", { ttftMs: 500.1 }, false],
  ["over that of its gaps", { itlP99Ms: 101 }, false],
  ["over that of its tokens", { tpotMs: 51 }, false],
  ["over that of its end", { e2elMs: 5001 }, false],
  ["of one token", { itlP99Ms: undefined, tpotMs: undefined }, true],
  [
    "that failed",
    { failure: { code: "http_500", message: "", refused: false, retryAfterMs: undefined } },
    false,
  ],
] as const)
  test(`isGood: an answer ${what} ${good ? "counts" : "does not count"}`, () => {
    assert.equal(isGood({ ...answerOf(0), ...change }, OBJECTIVE), good);
  });

test("isGood: a limit that is not set is not looked at", () => {
  assert.equal(isGood({ ...answerOf(0), e2elMs: 1e9 }, { ttft: 500 }), true);
});

test("parseObjective: each name with its milliseconds", () => {
  const texts = ["ttft:500", "itl:99.5"];
  assert.deepEqual(parseObjective(texts), { ttft: 500, itl: 99.5 });
});

for (const text of [
  "ttft",
  "ttft:",
  "ttft:0",
  "ttft:-1",
  "ttft:x",
  "ttlt:5",
  "ttft:1:2",
  "itl:Infinity",
])
  test(`parseObjective: ${text} is refused by name`, () => {
    assert.throws(() => parseObjective([text]), new RegExp(`--goodput ${text}: must be ttft`));
  });

test("parseObjective: a name that is there twice is refused", () => {
  assert.throws(() => parseObjective(["ttft:1", "ttft:2"]), /ttft is there twice/);
});
