import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { assertFlat, LiveBytes } from "./live-bytes.js";

/** For every line it makes objects of some 100 bytes each: kept, or garbage at once. */
const PROGRAM = `
const kept = [];
const make = (count) => Array.from({ length: count }, (_, i) => ({ i, text: "x".repeat(40) + i }));
process.stdin.on("data", (line) => {
  const [what, count] = String(line).split(" ");
  const made = make(Number(count));
  if (what === "keep") kept.push(made);
  console.log("made");
});
console.log("up");
`;

test("live bytes: garbage is not counted, what a process keeps is", async () => {
  const [memory, child] = await LiveBytes.around(() =>
    Promise.resolve(
      spawn(process.execPath, ["-e", PROGRAM], { stdio: ["pipe", "pipe", "inherit"] }),
    ),
  );
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const pid = child.pid ?? assert.fail("not started");
    const say = async (line: string) => {
      child.stdin.write(line);
      await lines.next();
    };
    await lines.next();
    await say("drop 1000");
    const before = [await memory.of(pid)];
    await say("drop 300000");
    assertFlat(before, [await memory.of(pid)]);
    await say("keep 300000");
    const after = [await memory.of(pid)];
    assert.throws(() => assertFlat(before, after), /bytes more that can be reached/);
  } finally {
    child.kill();
    await memory.end();
  }
});
