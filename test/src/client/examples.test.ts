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

const expected: Record<string, RegExp> = {
  "abort.mjs": /^ABORTED after 3 pieces\nleft\n$/,
  "count-tokens.mjs": /^3 tiles of 16 tokens\n\d+ prompt tokens of 4096\n$/,
  "errors.mjs":
    /^INVALID_ARGUMENT false sampling.top_p\nMODEL_NOT_FOUND false model\nDEADLINE false \nTRANSPORT true \nnvlm-d-tiny\n$/,
  "generate-once.mjs": /^74.48 STOP \d+\ntrue\n3 choices with seed 7\n$/,
  "generate.mjs": /^\d+ prompt tokens\nDAY 03-18\nSUM 74.48\nBUY map\n\d+ tokens made\n$/,
};

for (const [name, output] of Object.entries(expected))
  test(`examples/${name} says what it should`, async () => {
    assert.match(await outputOf(name), output);
  });

test("docs/client.md shows every example as it is", async () => {
  const names = (await readdir(root("examples"))).sort();
  assert.deepEqual(names, Object.keys(expected).sort());
  const page = await readFile(root("docs/client.md"), "utf8");
  for (const name of names)
    assert.ok(page.includes(await readFile(root(`examples/${name}`), "utf8")), name);
});
