// `make tidy`: the repository checks itself. Prints each problem; exit 1 when there is one.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as checks from "./checks.mjs";

const env = { ...process.env, PATH: `${process.cwd()}/node_modules/.bin:${process.env.PATH}` };
const MAX_TEXT = 3000;

function run(command, args) {
  const result = spawnSync(command, args, { encoding: "utf8", env, maxBuffer: 1 << 28 });
  const text = `${result.stdout}${result.stderr}${result.error?.message ?? ""}`;
  return { ok: result.status === 0, text: text.slice(0, MAX_TEXT), stdout: result.stdout };
}

/** The tool's own words when it fails. */
function tool(name, command, args) {
  const { ok, text } = run(command, args);
  return ok ? [] : [`${name}: ${text}`];
}

function staleCode() {
  const fresh = mkdtempSync(join(tmpdir(), "tessera-gen-"));
  const made = tool("buf generate", "buf", ["generate", "-o", fresh]);
  const same = tool("generated code is stale", "diff", [
    "-r",
    join(fresh, "proto/src/gen"),
    "proto/src/gen",
  ]);
  rmSync(fresh, { recursive: true });
  return [...made, ...same];
}

function licences() {
  const { ok, text, stdout } = run("license-checker-rseidelsohn", ["--json"]);
  if (!ok) return [`licences: ${text}`];
  const entries = Object.entries(JSON.parse(stdout)).map(([name, { licenses }]) => [
    name,
    licenses,
  ]);
  return checks.checkLicences(Object.fromEntries(entries));
}

const tracked = run("git", ["ls-files", "--cached", "--others", "--exclude-standard"])
  .stdout.split("\n")
  .filter((path) => path !== "" && !path.includes("/gen/") && !path.startsWith("test/oracle/"));
const read = (path) => readFileSync(path, "utf8");
const sources = tracked.filter((path) => /\.(ts|mjs|js|cc|h|cu|cuh|proto|sh)$/.test(path));
const cpp = sources.filter((path) => /\.(cc|h|cu|cuh)$/.test(path));
const pages = tracked.filter((path) => /\.(md|yaml|yml)$/.test(path));
const packages = tracked
  .filter((path) => path.endsWith("package.json"))
  .map((path) => JSON.parse(read(path)));

const problems = [
  ...sources
    .map((path) => ({ path, text: read(path) }))
    .flatMap((file) => [
      ...checks.checkSizes(file),
      ...checks.checkImports(file),
      ...checks.checkDoors(file),
      ...checks.checkEnvironment(file),
      ...checks.checkIncludes(file),
      ...checks.checkCppFunctions(file),
      ...checks.checkBanned(file),
    ]),
  ...pages.flatMap((path) => checks.checkBanned({ path, text: read(path) })),
  ...checks.checkDependencies({ packages, page: read("docs/dependencies.md") }),
  ...checks.checkPins(packages),
  ...licences(),
  ...tool("prettier", "prettier", ["--check", "--log-level", "warn", "."]),
  ...tool("clang-format", "clang-format", ["--dry-run", "-Werror", ...cpp]),
  ...tool("eslint", "eslint", ["."]),
  ...tool("buf lint", "buf", ["lint"]),
  ...staleCode(),
];
for (const problem of problems) console.log(problem);
console.log(problems.length === 0 ? "tidy" : `${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
