/** A batch's answers on disk that are damaged. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { inspect } from "node:util";
import { readDurable } from "../storage/durable.js";
import { ResultLog } from "./result-log.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-results-"));
after(() => rm(folder, { recursive: true }));

/** Errors are logged with their messages, stacks and causes: none of these says what a user wrote or got. */
function silent(error: unknown): boolean {
  assert.ok(error instanceof Error);
  assert.match(error.message, /(output\.jsonl: line 2|record\.json).* is no JSON/);
  assert.doesNotMatch(inspect(error, { depth: 9 }), /quincunx/);
  return true;
}

test("results: a damaged line is told by its place, and not by what stands in it", async () => {
  const whole = JSON.stringify({ custom_id: "a", response: { status_code: 200 } });
  await writeFile(join(folder, "output.jsonl"), `${whole}\nquincunx "quincunx"\n`);
  await assert.rejects(ResultLog.open(folder), silent);
});

test("records: a damaged one is told by its path, and not by what stands in it", async () => {
  const path = join(folder, "record.json");
  await writeFile(path, 'quincunx "quincunx"');
  await assert.rejects(readDurable(path), silent);
});
