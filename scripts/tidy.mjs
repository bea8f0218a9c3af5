// The repository checks itself: generated code, proto lint, file sizes, import direction, banned words.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MAX_LINES = 500;
const MAY_IMPORT = {
  proto: [],
  model: [],
  native: [],
  client: ["proto"],
  coordinator: ["proto", "model", "native/image"],
  "shard-worker": ["proto", "model", "native/engine"],
  cli: ["client", "coordinator", "shard-worker", "model"],
};
const BANNED = [/\bFIXME\b/, /\bXXX\b/, /\bHACK\b/, /TODO(?!\(#\d+\))/, /[/]work[/]/];
const env = { ...process.env, PATH: `${process.cwd()}/node_modules/.bin:${process.env.PATH}` };
const problems = [];

function run(command, args) {
  const result = spawnSync(command, args, { encoding: "utf8", env });
  return { ok: result.status === 0, text: `${result.stdout}${result.stderr}` };
}

const tracked = run("git", ["ls-files"]).text.split("\n").filter(Boolean);
const sources = tracked.filter(
  (file) =>
    /\.(ts|mjs|cc|h|proto)$/.test(file) &&
    !file.includes("/gen/") &&
    !file.startsWith("test/oracle/"),
);

for (const file of sources) {
  const text = readFileSync(file, "utf8");
  const lines = text.split("\n").length;
  if (lines > MAX_LINES) problems.push(`${file}: ${lines} lines, limit ${MAX_LINES}`);
  if (file === "scripts/tidy.mjs") continue;
  for (const word of BANNED) if (word.test(text)) problems.push(`${file}: banned: ${word}`);
  const allowed = MAY_IMPORT[file.split("/")[0]];
  if (allowed === undefined) continue;
  for (const [, name] of text.matchAll(/from "@tessera\/([^"]+)"/g))
    if (!allowed.some((prefix) => name === prefix || name.startsWith(`${prefix}/`)))
      problems.push(`${file}: may not import @tessera/${name}`);
}

const lint = run("buf", ["lint"]);
if (!lint.ok) problems.push(`buf lint: ${lint.text}`);
const fresh = mkdtempSync(join(tmpdir(), "tessera-gen-"));
const made = run("buf", ["generate", "-o", fresh]);
if (!made.ok) problems.push(`buf generate: ${made.text}`);
const same = run("diff", ["-r", join(fresh, "proto/src/gen"), "proto/src/gen"]);
if (!same.ok) problems.push(`generated code is stale: ${same.text.slice(0, 500)}`);
rmSync(fresh, { recursive: true });

for (const problem of problems) console.log(problem);
console.log(problems.length === 0 ? "tidy" : `${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
