/** Settings from the environment and from files, and what is said of wrong ones. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Command, Option } from "commander";
import { whole } from "../commands/options.js";
import { childEnvironment } from "./config.js";
import { fromEnvironment, type Environment } from "./environment.js";
import { fromFile } from "./file.js";
import { shown } from "./secret.js";
import { settingsOf } from "./settings.js";
import { ConfigurationError, Problems } from "./sources.js";
import { distance, meant } from "./suggest.js";

const command = new Command("serve")
  .option("--max-requests <count>", "…", whole, 4)
  .option("--served-model-name <name>", "…")
  .option("--otlp-endpoint <url>", "…")
  .option("--no-prefix-cache", "…")
  .option("--reflection", "…")
  .option("--origin <name>", "…", (text: string, before?: string[]) => [...(before ?? []), text])
  .option("--tag <names...>", "…")
  .option("--end-with-stdin", "…")
  .addOption(new Option("--kv <type>", "…").choices(["f32", "bf16"]));
const settings = settingsOf(command, new Set(["max-requests"]));
const elsewhere = new Map([["TESSERA_LISTEN", "worker"]]);

function environmental(environment: Environment) {
  const problems = new Problems();
  const found = fromEnvironment(environment, settings, { problems, elsewhere });
  return { found: Object.fromEntries(found), problems: problems.list };
}
function filed(text: string) {
  const problems = new Problems();
  const found = fromFile(text, "t.yaml", { settings, problems });
  return { found: Object.fromEntries(found), problems: problems.list };
}

test("settings: every option but how a process ends, by its name without no-", () => {
  assert.deepEqual(
    settings.map(({ name, takesValue, repeats, mandatory }) => [
      name,
      takesValue,
      repeats,
      mandatory,
    ]),
    [
      ["max-requests", true, false, true],
      ["served-model-name", true, false, false],
      ["otlp-endpoint", true, false, false],
      ["prefix-cache", false, false, false],
      ["reflection", false, false, false],
      ["origin", true, true, false],
      ["tag", true, true, false],
      ["kv", true, false, false],
    ],
  );
});

test("environment: TESSERA_ and the flag's name; switches are true or false; empty is not set", () => {
  const { found, problems } = environmental({
    TESSERA_MAX_REQUESTS: "7",
    TESSERA_PREFIX_CACHE: "false",
    TESSERA_REFLECTION: "1",
    TESSERA_KV: "",
    TESSERA_CPU: "avx2",
    TESSERA_CONFIG: "x.yaml",
    PATH: "/bin",
  });
  assert.deepEqual(problems, []);
  assert.deepEqual(found, {
    "max-requests": { value: ["7"], source: "TESSERA_MAX_REQUESTS" },
    "prefix-cache": { value: false, source: "TESSERA_PREFIX_CACHE" },
    reflection: { value: true, source: "TESSERA_REFLECTION" },
  });
});

test("environment: the standard's variable of the collector, after our own", () => {
  const OTEL_EXPORTER_OTLP_ENDPOINT = "http://a:1";
  const standard = environmental({ OTEL_EXPORTER_OTLP_ENDPOINT });
  assert.deepEqual(standard.found["otlp-endpoint"], {
    value: ["http://a:1"],
    source: "OTEL_EXPORTER_OTLP_ENDPOINT",
  });
  const both = environmental({ OTEL_EXPORTER_OTLP_ENDPOINT, TESSERA_OTLP_ENDPOINT: "http://b:1" });
  assert.deepEqual(both.found["otlp-endpoint"]?.value, ["http://b:1"]);
});

test("environment: unknown variables, those of other commands and wrong switches are told", () => {
  const { problems } = environmental({
    TESSERA_MAX_REQUEST: "1",
    TESSERA_QUITE_ANOTHER_THING: "1",
    TESSERA_LISTEN: "1",
    TESSERA_REFLECTION: "maybe",
    TESSERA_END_WITH_STDIN: "true",
  });
  assert.deepEqual(problems, [
    'TESSERA_REFLECTION: "maybe": must be true or false',
    "TESSERA_MAX_REQUEST: unknown, did you mean TESSERA_MAX_REQUESTS?",
    "TESSERA_QUITE_ANOTHER_THING: unknown",
    "TESSERA_LISTEN: is of worker",
    "TESSERA_END_WITH_STDIN: unknown",
  ]);
});

test("environment: what Kubernetes sets beside a Service called tessera is no setting", () => {
  const { found, problems } = environmental({
    TESSERA_SERVICE_HOST: "10.0.0.1",
    TESSERA_SERVICE_PORT: "4000",
    TESSERA_PORT: "tcp://10.0.0.1:4000",
    TESSERA_PORT_4000_TCP_ADDR: "10.0.0.1",
    TESSERA_COORDINATOR_SERVICE_PORT_GRPC: "4000",
  });
  assert.deepEqual([found, problems], [{}, []]);
});

test("file: names and values with their lines; numbers as they are written; lists where a flag repeats", () => {
  const { found, problems } = filed(
    "# of the trial\nmax-requests: 0010\nserved-model-name: 1.10\n\nprefix-cache: false\norigin: [a, b]\ntag: c\n",
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(found, {
    "max-requests": { value: ["0010"], source: "t.yaml:2" },
    "served-model-name": { value: ["1.10"], source: "t.yaml:3" },
    "prefix-cache": { value: false, source: "t.yaml:5" },
    origin: { value: ["a", "b"], source: "t.yaml:6" },
    tag: { value: ["c"], source: "t.yaml:7" },
  });
});

const BAD: [string, string[]][] = [
  ["", []],
  ["- a\n", ["t.yaml:1: must be names and values, as max-requests: 64"]],
  ["kv: f32\nmax_requests: 1\n", ["t.yaml:2: max_requests: unknown, did you mean max-requests?"]],
  ["end-with-stdin: true\n", ["t.yaml:1: end-with-stdin: unknown"]],
  ["config: other.yaml\n", ["t.yaml:1: config: unknown"]],
  ["reflection: yes\n", ["t.yaml:1: reflection: must be true or false"]],
  ["kv: [f32]\n", ["t.yaml:1: kv: must be a text or a number"]],
  ["kv: true\n", ["t.yaml:1: kv: must be a text or a number"]],
  ["kv:\n", ["t.yaml:1: kv: must be a text or a number"]],
  ["origin: [a, {b: c}]\n", ["t.yaml:1: origin: must be a text or a number, or a list of them"]],
  ["kv: f32\nkv: bf16\n", ["t.yaml:2: Map keys must be unique"]],
  ["kv: 'f32\n", ["t.yaml:2: Missing closing 'quote"]],
];
for (const [text, problems] of BAD)
  test(`file: ${JSON.stringify(text)} → ${problems.length} problems`, () => {
    assert.deepEqual(filed(text).problems, problems);
  });

test("a setting with a value and a --no-x takes false besides, from file and environment", () => {
  const web = new Command("web")
    .option("--http <address>", "…", "127.0.0.1:8000")
    .option("--no-http", "…")
    .option("--model <dir>", "…");
  const both = settingsOf(web, new Set());
  assert.deepEqual(
    both.map(({ name, takesValue, mayBeOff }) => [name, takesValue, mayBeOff]),
    [
      ["http", true, true],
      ["model", true, false],
    ],
  );
  const problems = new Problems();
  const file = (text: string) => fromFile(text, "t.yaml", { settings: both, problems });
  const variables = (environment: Environment) =>
    fromEnvironment(environment, both, { problems, elsewhere });
  assert.equal(file("http: false").get("http")?.value, false);
  assert.deepEqual(file("http: a:1").get("http")?.value, ["a:1"]);
  assert.equal(variables({ TESSERA_HTTP: "false" }).get("http")?.value, false);
  assert.deepEqual(variables({ TESSERA_HTTP: "a:1" }).get("http")?.value, ["a:1"]);
  assert.deepEqual(problems.list, []);
  file("http: true\nmodel: false");
  assert.equal(problems.list.length, 2);
});

test("a child's environment has what its flags do not say, and of ours the kernels' kind alone", () => {
  const own = { PATH: "/bin", TESSERA_CPU: "avx2", TESSERA_PORT: "1", OTEL_SERVICE_NAME: "x" };
  assert.deepEqual(childEnvironment(own, { TESSERA_CPU: "scalar" }), {
    PATH: "/bin",
    TESSERA_CPU: "scalar",
    OTEL_SERVICE_NAME: "x",
  });
});

test("secrets are hidden by name, and in URLs", () => {
  assert.equal(shown("api-key", "sk-1"), "***");
  assert.equal(shown("tls-key", "server.pem"), "server.pem");
  assert.equal(shown("nats", "nats://u:p:w@a:1,nats://tok@b"), "nats://u:***@a:1,nats://***@b");
  assert.equal(shown("listen", "127.0.0.1:1"), "127.0.0.1:1");
  assert.equal(
    shown("otlp-endpoint", "http://a:1/x?team=b&api_key=sk-1&token=t#c"),
    "http://a:1/x?team=b&api_key=***&token=***#c",
  );
});

test("suggestions: the nearest name, none that is far, none for a name without an end", () => {
  assert.equal(distance("kitten", "sitting"), 3);
  assert.equal(meant("modle", ["kv", "model", "mode-of-x"]), ", did you mean model?");
  assert.equal(meant("abcdef", ["model"]), "");
  assert.equal(meant("x".repeat(100_000), ["x"]), "");
});

test("problems: one is told in a line, several as a list", () => {
  const message = (...list: string[]) => new ConfigurationError(list).message;
  assert.equal(message("a: b"), "CONFIGURATION: a: b");
  assert.equal(message("a: b", "c: d"), "CONFIGURATION: 2 problems\n  a: b\n  c: d");
});
