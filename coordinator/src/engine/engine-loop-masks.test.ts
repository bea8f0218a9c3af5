/** The loop and masks that come late, or never. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServeError } from "@tessera/proto";
import { ScriptedRanks, settle, setup } from "./engine-loop.fixture.js";
import { grammarOf, HandMatcher } from "./hand-matcher.fixture.js";

test("masks: a grammar that went bad while its request waited ends that request, and nothing else", async () => {
  const { loop, faults, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  const matcher = new HandMatcher(ServeError.field("constraint", "a step took too long"));
  const { grammar, state } = grammarOf(matcher);
  const bad = submit({}, grammar);
  await settle();
  assert.deepEqual([bad.told, faults], [["INVALID_ARGUMENT"], []]);
  assert.deepEqual([matcher.closed, state.closed, loop.requestCount], [true, 1, 0]);
  const next = submit();
  await settle();
  ranks.answer();
  await settle();
  loop.audit();
  assert.deepEqual(next.told, ["length", "done 1"]);
});

test("masks: one that is late is waited for once, not again at every step of the others", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { loop, faults, submit } = setup();
  const ranks = new ScriptedRanks();
  loop.attach(ranks);
  submit({ maxTokens: 9 });
  const matcher = new HandMatcher();
  const slow = submit({}, grammarOf(matcher).grammar);
  await settle();
  ranks.answer();
  await settle();
  assert.equal(ranks.steps.length, 1, "the step waits a little");
  t.mock.timers.tick(5);
  for (const count of [2, 3, 4]) {
    await settle();
    assert.equal(ranks.steps.length, count, "steps go on without the mask");
    ranks.answer();
  }
  matcher.give();
  await settle();
  ranks.answer();
  await settle();
  ranks.answer();
  await settle();
  assert.deepEqual([slow.told, faults], [["length", "done 1"], []]);
});

test("masks: a request that is cancelled, or whose mask fails, while it is waited for frees everything", async () => {
  for (const end of ["cancel", "fail"] as const) {
    const { loop, faults, submit } = setup();
    const ranks = new ScriptedRanks();
    loop.attach(ranks);
    const matcher = new HandMatcher();
    const { grammar, state } = grammarOf(matcher);
    const { active, told } = submit({ promptIds: Array.from({ length: 70 }, () => 1) }, grammar);
    await settle();
    assert.equal(ranks.steps.length, 0);
    if (end === "cancel") loop.cancel(active, { reason: "aborted" });
    else matcher.fail(new ServeError("INTERNAL", "the thread has ended"));
    await settle();
    assert.deepEqual(told, end === "cancel" ? ["aborted", "done 0"] : ["INTERNAL"]);
    assert.deepEqual([matcher.closed, state.closed, loop.requestCount, faults], [true, 1, 0, []]);
    assert.equal(loop.load().usedBlocks, 0);
    loop.audit();
  }
});
