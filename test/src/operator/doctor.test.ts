/** tessera doctor on this machine, and on machines that lack something. */
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { after, test } from "node:test";
import { spawnSync } from "node:child_process";
import { atLeast, describeFacts, examine, type Fact } from "@tessera/cli";
import { cpuKind } from "@tessera/shard-worker";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

const options = {
  ports: [],
  path: process.env["PATH"] ?? "",
  nodeVersion: process.version,
  cpuKind,
  forcedCpu: undefined,
};
const named = (facts: Fact[], name: string) => facts.find((fact) => fact.name === name);

test("doctor: this machine, which runs the tests, lacks nothing", async () => {
  const { code, stdout } = await tessera(["doctor", "--json", "--port", "0"]);
  const { ok, facts } = JSON.parse(stdout) as { ok: boolean; facts: Fact[] };
  assert.deepEqual([code, ok], [0, true]);
  const names = ["node", "cpu", "cores", "kernels", "memory", "huge pages", "/dev/shm", "compiler"];
  for (const name of [...names, "native addon", "cmake", "make", "nats-server", "gpu"])
    assert.ok(named(facts, name), name);
  assert.ok(named(facts, "kernels")?.value.startsWith(cpuKind()), stdout);
  assert.ok(named(facts, "node")?.value.startsWith(process.version));
  assert.match(named(facts, "nats-server")?.value ?? "", /^\d+\.\d+\.\d+, \//);
});

test("doctor: for people, one line a fact and a last word", async () => {
  const { code, stdout } = await tessera(["doctor", "--port", "0"]);
  assert.equal(code, 0);
  assert.match(stdout, /^ {2}ok {2}node +v\d+/m);
  assert.match(stdout, /\nTessera runs here\.\n$/);
});

test("doctor: a port in use is noted, several are looked at", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const facts = await examine({ ...options, ports: [port, 0] });
  const wanted = { name: `port ${port}`, state: "note", value: "in use" };
  assert.deepEqual(named(facts, `port ${port}`), {
    ...wanted,
    hint: "give another one with --port",
  });
  assert.equal(named(facts, "port 0")?.state, "ok");
});

test("doctor: an old Node is missing the new one, and is told where to get it", async () => {
  const facts = await examine({ ...options, nodeVersion: "v20.18.9" });
  assert.equal(named(facts, "node")?.state, "missing");
  assert.match(describeFacts(facts), /MISS {2}node .*20\.18\.9.*\n.*install Node\.js >=20\.19/);
  assert.match(describeFacts(facts), /Missing: node\.\n$/);
});

test("doctor: without compilers a built addon is enough, and one that is not built needs them", async () => {
  const bare = { ...options, path: "/nowhere" };
  const built = await examine(bare);
  const tools = ["compiler", "cmake", "make"];
  assert.deepEqual(
    tools.map((name) => named(built, name)?.state),
    ["note", "note", "note"],
  );
  const fails = () => {
    throw new Error("Cannot find module '../build/tessera.node'\nRequire stack:");
  };
  const unbuilt = await examine({ ...bare, cpuKind: fails });
  for (const name of ["native addon", ...tools])
    assert.equal(named(unbuilt, name)?.state, "missing", name);
  assert.equal(named(unbuilt, "native addon")?.hint, "run: make build");
  assert.match(named(unbuilt, "compiler")?.hint ?? "", /apt-get install g\+\+/);
});

test("doctor: TESSERA_CPU is said, and one that cannot be had is exit 1", () => {
  const run = (TESSERA_CPU: string) =>
    spawnSync(process.execPath, [root("cli/bin/tessera.js"), "doctor", "--json"], {
      env: { ...process.env, TESSERA_CPU },
      encoding: "utf8",
    });
  const scalar = run("scalar");
  assert.equal(scalar.status, 0);
  assert.match(scalar.stdout, /scalar by TESSERA_CPU/);
  const wrong = run("abacus");
  assert.equal(wrong.status, 1);
  assert.match(wrong.stdout, /abacus/);
});

test("versions are compared number by number", () => {
  assert.ok(atLeast("20.19.0", "20.19"));
  assert.ok(atLeast("2.10", "2.9"));
  assert.ok(!atLeast("2.9.99", "2.10"));
  assert.ok(!atLeast("20", "20.19"));
  assert.ok(atLeast("22.0", "20.19"));
});
