/** The commands of docs/http.md, as they stand there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { serveHttp } from "../harness/http-front.js";
import { root } from "../harness/paths.js";

const DEADLINE_MS = 60_000;
const run = promisify(execFile);
const missing = await run("curl", ["--version"], { timeout: DEADLINE_MS }).then(
  () => undefined,
  (error: unknown) => `there is no curl: ${String(error)}`,
);

const page = await readFile(root("docs/http.md"), "utf8");
const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = ""]) =>
  // The server is the test's.
  block.replaceAll(/^tessera .*\n/gm, ""),
);

test("docs/http.md: its commands work", { skip: missing ?? false }, async () => {
  const { url } = await serveHttp();
  const folder = await mkdtemp(join(tmpdir(), "tessera-docs-"));
  after(() => rm(folder, { recursive: true }));
  await symlink(root("models"), join(folder, "models"));
  assert.equal(blocks.length, 3);
  const said: string[] = [];
  for (const block of blocks) {
    const commands = block.replaceAll("http://127.0.0.1:8000", url);
    const strict = 'set -eo pipefail\ncurl() { command curl -sS --fail-with-body "$@"; }\n';
    const options = { cwd: folder, timeout: DEADLINE_MS };
    said.push((await run("bash", ["-c", strict + commands], options)).stdout);
  }
  const [chat = "", stream = "", others = ""] = said;
  assert.match(chat, /"object":"chat.completion"/);
  // The whole stream, then what is behind its first event.
  assert.equal(stream.split("[DONE]").length, 3);
  assert.equal(stream.split('"role":"assistant"').length, 2);
  assert.match(others, /"content":"74\.48"/);
  assert.match(others, /"token_strs":\["H","el","lo"\]/);
});
