/** Flags, environment and file of real commands: their order, their problems together, what is shown and hidden. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { createProgram, startCluster } from "@tessera/cli";
import { TesseraClient } from "@tessera/client";
import { tessera } from "../harness/command.js";
import { FLAGS } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

const folder = await mkdtemp(join(tmpdir(), "tessera-config-"));
after(() => rm(folder, { recursive: true }));
const model = root("models/nvlm-d-tiny");

async function file(text: string): Promise<string> {
  const path = join(folder, "tessera.yaml");
  await writeFile(path, text);
  return path;
}

/** The lines of `config --print` by their names. */
async function printed(args: string[], environment: Record<string, string> = {}) {
  const { code, stdout, stderr } = await tessera(["config", "--print", ...args], { environment });
  assert.equal(code, 0, stderr);
  return new Map(stdout.split("\n").map((line) => [line.split(":")[0] ?? "", line]));
}

test("config: a flag comes before the environment, that before the file, that before the default", async () => {
  const path = await file("kv: bf16\nwire: bf16\nport: 1\nhealth-port: 2\nreflection: true\n");
  const environment = { TESSERA_CONFIG: path, TESSERA_PORT: "3", TESSERA_KV: "f32" };
  const lines = await printed(["up", "--model", model, "--port", "4"], environment);
  const expected = [
    `model: ${model} # flag`,
    "port: 4 # flag",
    "kv: f32 # TESSERA_KV",
    `wire: bf16 # ${path}:2`,
    `health-port: 2 # ${path}:4`,
    `reflection: true # ${path}:5`,
    "workers: 1 # default",
  ];
  for (const line of expected) assert.equal(lines.get(line.split(":")[0] ?? ""), line);
  assert.equal(lines.get("# vision"), "# vision: not set (default: auto)");
  assert.equal(lines.get("# max-requests"), "# max-requests: not set (default: 1024)");
  assert.equal(
    lines.get("# served-model-name"),
    "# served-model-name: not set (default: the folder's name)",
  );
  assert.equal(lines.get("# health-port"), undefined);
  assert.equal(lines.get("# keys"), "# keys: not set");
});

test("config: what is printed can be given as a file, and says the same again", async () => {
  const first = await tessera(["config", "--print", "up", "--model", "a: #b", "--workers", "2"]);
  const second = await tessera(["config", "--print", "--config", await file(first.stdout)]);
  const values = (text: string) => text.replace(/ # \S+$/gm, "");
  assert.equal(second.code, 0, second.stderr);
  assert.equal(values(second.stdout), values(first.stdout));
  assert.match(first.stdout, /^model: "a: #b" # flag$/m);
});

test("config: a password in a NATS URL is not shown, nor in a problem", async () => {
  const args = ["worker", "--model", model, "--listen", "127.0.0.1:0"];
  const lines = await printed(args, { TESSERA_NATS: "nats://u:hidden@h:1" });
  assert.equal(lines.get("nats"), "nats: nats://u:***@h:1 # TESSERA_NATS");
});

for (const name of ["up", "coordinator", "worker"])
  test(`config: every option of ${name} can be given by environment`, async () => {
    const command = createProgram().commands.find((each) => each.name() === name) ?? assert.fail();
    const options = command.options.filter(
      ({ long }) => long !== "--config" && long !== "--end-with-stdin",
    );
    const environment: Record<string, string> = { TESSERA_NO_SUCH: "1" };
    for (const option of options) {
      const variable = `TESSERA_${option.name().replace(/^no-/, "").toUpperCase()}`;
      environment[variable.replaceAll("-", "_")] = "\u0001";
    }
    const { stderr } = await tessera(["config", name], { environment });
    const strangers = stderr.match(/\S+(?=: (unknown|is of ))/g);
    assert.deepEqual(strangers, ["TESSERA_NO_SUCH"]);
  });

for (const name of ["up", "coordinator", "worker"])
  test(`${name}: all problems of flags, environment and file are told at once, and nothing starts`, async () => {
    const path = await file("log-level: loud\nmodle: x\nmodel: [1]\n");
    const environment = { TESSERA_THREADS_: "1", TESSERA_REFLECTION: "perhaps" };
    const args = [name, "--config", path, "--health-lsten", "x", "--heartbeat-ms=y"];
    const { code, stdout, stderr } = await tessera(args, { environment });
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^tessera: CONFIGURATION: \d+ problems\n/);
    const told = [
      /^ {2}--health-lsten: unknown/m,
      /^ {2}TESSERA_THREADS_: unknown/m,
      /^ {2}TESSERA_REFLECTION: "perhaps": must be true or false$/m,
      /^ {2}\S+tessera\.yaml:1: log-level: "loud": Allowed choices are trace, debug/m,
      /^ {2}\S+tessera\.yaml:2: modle: unknown, did you mean model\?$/m,
      /^ {2}\S+tessera\.yaml:3: model: must be a text or a number$/m,
    ];
    for (const problem of told) assert.match(stderr, problem);
  });

const WRONG = ["--tls-cert", "none.pem", "--model", join(folder, "none")];
const WRONG_FRONT = [...WRONG, "--keys", "none.yaml", "--otlp-endpoint", "htp://u:hidden@h"];
const TOLD = [/^ {2}tls-cert: .*none\.pem/m, /^ {2}\S*none\/config\.json: cannot be read$/m];
const TOLD_FRONT = [...TOLD, /^ {2}keys: none\.yaml/m, /^ {2}otlp-endpoint: "htp:\/\/u:\*\*\*@h"/m];
const wrongStarts: [name: string, args: string[], told: RegExp[]][] = [
  [
    "up",
    [...WRONG_FRONT, "--http", "8000", "--threads", "0", "--max-requests", "0"],
    [
      ...TOLD_FRONT,
      /^ {2}--http 8000: is no host:port$/m,
      /^ {2}threads: 0, must be 1/m,
      /^ {2}max-requests: 0, must be/m,
    ],
  ],
  [
    "coordinator",
    [...WRONG_FRONT, "--listen", "x", "--http", "8000"],
    [
      ...TOLD_FRONT,
      /^ {2}listen: "x" is no/m,
      /^ {2}http: "8000" is no/m,
      /^ {2}workers and nats/m,
    ],
  ],
  ["worker", [...WRONG, "--listen", "x"], [...TOLD, /^ {2}listen: "x" is no/m]],
];
for (const [name, args, told] of wrongStarts)
  test(`${name}: what addresses, files and the model are wrong in is told at once, each once`, async () => {
    const { code, stdout, stderr } = await tessera([name, ...args]);
    assert.deepEqual([code, stdout], [1, ""]);
    for (const problem of told) assert.match(stderr, problem);
    assert.doesNotMatch(stderr, /hidden/);
    const lines = stderr.split("\n").filter((line) => line.startsWith("  "));
    assert.equal(new Set(lines).size, lines.length, stderr);
  });

test("config: a file that is missing, and a command that is none", async () => {
  const missing = await tessera(["worker", "--config", join(folder, "none.yaml")]);
  assert.match(missing.stderr, /--config: ENOENT.*none\.yaml/);
  const none = await tessera(["config", "wroker"]);
  assert.equal(
    none.stderr,
    "tessera: CONFIGURATION: wroker: no such command, did you mean worker?\n",
  );
});

test("children of up are told by their flags: variables meant for up do not reach them", async () => {
  // Either would be refused by a child: one is no option of it, one is beside its own flag.
  const meant = { TESSERA_PORT: "4000", TESSERA_NATS: "nats://127.0.0.1:1" };
  Object.assign(process.env, meant);
  try {
    const cluster = await startCluster({ model, workers: 1, threads: 1, port: 0, flags: FLAGS });
    const client = new TesseraClient({ addresses: [cluster.address] });
    try {
      const { choices } = await client.generateOnce({ tokenIds: [65, 66], maxTokens: 2 });
      assert.equal(choices.length, 1);
    } finally {
      client.close();
      await cluster.stop();
    }
  } finally {
    for (const name of Object.keys(meant)) Reflect.deleteProperty(process.env, name);
  }
});
