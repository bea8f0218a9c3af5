/** The programs of docs/client.md against a real cluster. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

const { cluster, stop } = await serve(2);
after(stop);
const PICTURE = root("models/documents/document-02.png");
const run = promisify(execFile);

async function outputOf(name: string): Promise<string> {
  const args = [root(`examples/${name}`), cluster.address, PICTURE];
  return (await run(process.execPath, args, { timeout: 60_000 })).stdout;
}

/** How long prompts and answers are is not looked at here. */
const withoutCounts = (line: string) =>
  line.replace(/\d+(?= prompt tokens| tokens made)|(?<=prompt tokens of )\d+/g, "N");

const expected: Record<string, string[]> = {
  "abort.mjs": ["ABORTED after 3 pieces", "left"],
  "count-tokens.mjs": ["3 tiles of 16 tokens", "N prompt tokens of N"],
  "errors.mjs": [
    "INVALID_ARGUMENT false sampling.top_p",
    "MODEL_NOT_FOUND false model",
    "DEADLINE false ",
    "TRANSPORT true ",
    "nvlm-d-tiny",
  ],
  "generate-once.mjs": ["74.48 STOP 6", "true", "3 choices with seed 7"],
  "resume.mjs": ["the same text", "REQUEST_EXISTS"],
  "generate.mjs": ["N prompt tokens", "DAY 03-18", "SUM 74.48", "BUY map", "N tokens made"],
};

for (const [name, output] of Object.entries(expected))
  test(`examples/${name} says what it should`, async () => {
    const lines = (await outputOf(name)).trimEnd().split("\n");
    assert.deepEqual(lines.map(withoutCounts), output);
  });

test("docs/client.md shows every example as it is", async () => {
  const names = (await readdir(root("examples"))).sort();
  assert.deepEqual(names, Object.keys(expected).sort());
  const page = await readFile(root("docs/client.md"), "utf8");
  for (const name of names)
    assert.ok(page.includes(await readFile(root(`examples/${name}`), "utf8")), name);
});
