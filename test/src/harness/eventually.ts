import assert from "node:assert/strict";

const PERIOD_MS = 20;

/** Waits until `holds` resolves to true. @throws AssertionError naming `what` at the deadline. */
export async function eventually(
  what: string,
  holds: () => Promise<boolean> | boolean,
  deadlineMs = 20_000,
): Promise<void> {
  const end = Date.now() + deadlineMs;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}: not within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
  }
}
