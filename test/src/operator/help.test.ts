/** The command's help: each command says what it does, describes every option, and shows an example. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createProgram } from "@tessera/cli";
import { tessera } from "../harness/command.js";

const MACHINE_READ = ["chat", "doctor", "plan", "profile", "tiles", "tokenize"];
const { commands } = createProgram();

test("help: the commands are those of the README", async () => {
  const { code, stdout } = await tessera(["--help"]);
  assert.equal(code, 0);
  const names = commands.map((command) => command.name());
  for (const name of names) assert.match(stdout, new RegExp(`^  ${name} `, "m"));
  assert.deepEqual([...new Set(names)], names);
});

for (const command of commands)
  test(`help: ${command.name()} describes itself and its options, and its example runs this command`, async () => {
    assert.notEqual(command.description(), "");
    for (const { flags, description } of command.options) assert.notEqual(description, "", flags);
    const { code, stdout } = await tessera([command.name(), "--help"]);
    assert.equal(code, 0);
    const examples = stdout.slice(stdout.search(/^Examples?:$/m));
    assert.match(examples, new RegExp(`tessera ${command.name()} `));
    const used = [...examples.matchAll(/ (--?[a-z][a-z-]*)/g)].map(([, flag]) => flag);
    const known = command.options.flatMap(({ short, long }) => [short, long]);
    for (const flag of used)
      assert.ok(known.includes(flag) || flag === "-n", `${flag} of the example`);
  });

test("help: what a machine may read has --json", () => {
  const having = commands.filter(({ options }) => options.some(({ long }) => long === "--json"));
  assert.deepEqual(having.map((command) => command.name()).sort(), MACHINE_READ);
});

test("an unknown command and an unknown option are refused by name, exit 1", async () => {
  const command = await tessera(["serve-all"]);
  assert.equal(command.code, 1);
  assert.match(command.stderr, /serve-all/);
  const option = await tessera(["plan", "--model", "x", "--modle", "x"]);
  assert.equal(option.code, 1);
  assert.match(option.stderr, /--modle.*\n.*--model/);
});
