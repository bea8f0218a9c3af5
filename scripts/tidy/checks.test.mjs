import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkBanned,
  checkCppFunctions,
  checkDependencies,
  checkDoors,
  checkEnvironment,
  checkImports,
  checkIncludes,
  checkLicences,
  checkPins,
  checkSizes,
} from "./checks.mjs";

test("imports: an arrow is followed, its reverse is refused", () => {
  const good = { path: "coordinator/src/a.ts", text: 'import { x } from "@tessera/model";' };
  assert.deepEqual(checkImports(good), []);
  const bad = { path: "model/src/a.ts", text: 'import { x } from "@tessera/coordinator";' };
  assert.deepEqual(checkImports(bad), ["model/src/a.ts: may not import @tessera/coordinator"]);
});

test("imports: the coordinator sees the image door of native, not the engine", () => {
  const text =
    'import { x } from "@tessera/native/engine";\nimport { y } from "@tessera/native/image";';
  assert.deepEqual(checkImports({ path: "coordinator/src/a.ts", text }), [
    "coordinator/src/a.ts: may not import @tessera/native/engine",
  ]);
});

test("imports: another workspace by its path, a bare import, an inner arrow backwards are refused", () => {
  const text = [
    'import { a } from "../engine/engine-loop.js";',
    'import "../schedule/blocks.js";',
    'import { b } from "./prompt.js";',
    'const c = await import("../../../cli/dist/main.js");',
    'import "@tessera/cli";',
  ].join("\n");
  assert.deepEqual(checkImports({ path: "coordinator/src/request/a.ts", text }), [
    "coordinator/src/request/a.ts: may not import @tessera/cli",
    "coordinator/src/request/a.ts: may not import cli/dist/main.js, another workspace, by its path",
    "coordinator/src/request/a.ts: may not import engine/",
    "coordinator/src/request/a.ts: may not import schedule/",
  ]);
  const front = 'import { x } from "../engine/serving.js";\nimport { y } from "../metrics.js";';
  assert.deepEqual(checkImports({ path: "coordinator/src/grpc/a.ts", text: front }), []);
});

test("doors: the package nats is imported by one file", () => {
  const text = ["import { connect } from ", '"nats";'].join("");
  assert.deepEqual(checkDoors({ path: "proto/src/nats.ts", text }), []);
  assert.deepEqual(checkDoors({ path: "coordinator/src/a.ts", text }), [
    "coordinator/src/a.ts: may not import nats, proto/src/nats.ts does",
  ]);
});

test("includes: folders in braces do not know each other", () => {
  const text =
    '#include "cache/sequences.h"\n#include "core/check.h"\n#include "program/program.h"\n';
  assert.deepEqual(checkIncludes({ path: "native/program/a.cc", text }), [
    "native/program/a.cc: may not include cache/",
  ]);
});

test("banned words: a bare to-do is refused, one that names its issue is let be", () => {
  const word = ["TO", "DO"].join("");
  assert.equal(checkBanned({ path: "a.ts", text: `// ${word}: later` }).length, 1);
  assert.equal(checkBanned({ path: "a.ts", text: `// ${word}(#7): CUDA` }).length, 0);
});

test("sizes: 501 lines and 101 columns of code are too many, 120 columns of prose are not", () => {
  assert.equal(checkSizes({ path: "a.ts", text: "x;\n".repeat(501) }).length, 1);
  assert.equal(checkSizes({ path: "a.ts", text: "x;\n".repeat(500) }).length, 0);
  assert.equal(checkSizes({ path: "a.ts", text: `${"x".repeat(101)}\n` }).length, 1);
  assert.equal(checkSizes({ path: "a.ts", text: `// ${"x".repeat(117)}\n` }).length, 0);
  assert.equal(checkSizes({ path: "a.ts", text: `// ${"x".repeat(118)}\n` }).length, 1);
});

test("C++ functions: 71 lines are too many, 70 are not; a class is not a function", () => {
  const body = (lines) => `int f(int a) {\n${"  a++;\n".repeat(lines - 2)}}\n`;
  assert.deepEqual(checkCppFunctions({ path: "native/a.cc", text: body(70) }), []);
  assert.deepEqual(checkCppFunctions({ path: "native/a.cc", text: body(71) }), [
    "native/a.cc:1: function of 71 lines, limit 70",
  ]);
  const type = `class A {\n${"  int a;\n".repeat(90)}};\n`;
  assert.deepEqual(checkCppFunctions({ path: "native/a.h", text: type }), []);
});

test("dependencies: each has its line and each line its dependency", () => {
  const packages = [{ dependencies: { left: "1.0.0", "@tessera/model": "0.1.0" } }];
  assert.deepEqual(checkDependencies({ packages, page: "| `right` | pads |" }), [
    "docs/dependencies.md: left has no line",
    "docs/dependencies.md: right is not a dependency",
  ]);
});

test("pins: a range is refused", () => {
  assert.deepEqual(checkPins([{ name: "a", dependencies: { left: "^1.0.0", right: "1.0.0" } }]), [
    "a: left ^1.0.0 is not pinned",
  ]);
});

test("licences: one off the list is refused, in a compound expression too", () => {
  assert.deepEqual(
    checkLicences({ "a@1.0.0": "MIT", "b@1.0.0": "(MIT AND GPL-3.0)", "@tessera/x@0.1.0": "?" }),
    ["b@1.0.0: licence (MIT AND GPL-3.0) is not on the list"],
  );
});

test("environment: config.ts and doctor read it, tests may, nobody else", () => {
  const text = 'const path = process.env["PATH"];';
  const allowed = ["cli/src/config/config.ts", "cli/src/commands/doctor.ts", "test/src/a.ts"];
  for (const path of [...allowed, "cli/src/a.test.ts"])
    assert.deepEqual(checkEnvironment({ path, text }), [], path);
  assert.deepEqual(checkEnvironment({ path: "coordinator/src/a.ts", text }), [
    "coordinator/src/a.ts: may not read the environment, cli/src/config/config.ts does",
  ]);
});
