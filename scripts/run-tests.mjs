// Runs groups of tests: `short` (ctest and the node tests that are not long), `long`, `sanitize` (ctest of a build with
// AddressSanitizer and UndefinedBehaviorSanitizer). Prints `tests: N passed, M failed`; no test at all is a failure.
import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const WORKSPACES = [
  "proto",
  "model",
  "native",
  "coordinator",
  "shard-worker",
  "client",
  "cli",
  "test",
];
const TIMEOUT_MS = 40 * 60_000;

function* walk(dir) {
  let entries = [];
  try {
    entries = readdirSync(dir);
  } catch {
    return;
  }
  for (const entry of entries) {
    const path = join(dir, entry);
    if (statSync(path).isDirectory()) yield* walk(path);
    else if (/\.test\.m?js$/.test(path)) yield path;
  }
}

function run(command, args) {
  const result = spawnSync(command, args, {
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 28,
  });
  return { code: result.status ?? 1, text: `${result.stdout}${result.stderr}` };
}

function native(folder) {
  const { code, text } = run("ctest", ["--test-dir", folder, "--output-on-failure"]);
  const match = /(\d+) tests failed out of (\d+)/.exec(text);
  const failed = Number(match?.[1] ?? 0);
  if (code !== 0 || failed > 0) console.log(text);
  return {
    passed: Number(match?.[2] ?? 0) - failed,
    failed: code !== 0 && failed === 0 ? 1 : failed,
  };
}

/** cmake alone: no node, no npm package. */
function sanitize() {
  const folder = "build/sanitize";
  const flags = ["-DTESSERA_SANITIZE=address,undefined", "-DTESSERA_ADDON=OFF"];
  for (const args of [
    ["-S", "native", "-B", folder, ...flags],
    ["--build", folder, "-j", "2"],
  ]) {
    const { code, text } = run("cmake", args);
    if (code === 0) continue;
    console.log(text);
    return { passed: 0, failed: 1 };
  }
  return native(folder);
}

function node(files) {
  const { code, text } = run("node", [
    "--test",
    "--test-concurrency=2",
    "--test-reporter=tap",
    ...files,
  ]);
  const passed = Number(/^# pass (\d+)$/m.exec(text)?.[1] ?? 0);
  const failed = Number(/^# fail (\d+)$/m.exec(text)?.[1] ?? 0);
  if (code !== 0) console.log(text);
  return { passed, failed: code !== 0 && failed === 0 ? 1 : failed };
}

const wanted = process.argv.slice(2);
const files = [...WORKSPACES.map((name) => join(name, "dist")), "scripts"].flatMap((folder) => [
  ...walk(folder),
]);
const isLong = (file) => file.endsWith(".long.test.js");
const parts = [];
if (wanted.includes("short"))
  parts.push(native("native/build"), node(files.filter((file) => !isLong(file))));
if (wanted.includes("long")) parts.push(node(files.filter(isLong)));
if (wanted.includes("sanitize")) parts.push(sanitize());
const passed = parts.reduce((sum, part) => sum + part.passed, 0);
const failed = parts.reduce((sum, part) => sum + part.failed, 0) + (passed === 0 ? 1 : 0);
console.log(`tests: ${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
