/** Keys and certificates on the command line: what is made, what is refused, what a command needs to be served. */
import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { serve } from "../harness/cluster.js";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";
import { certificates, DAY_MS } from "./certificates.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-commands-"));
after(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);
const MODEL = ["--model", root("models/nvlm-d-tiny")];

test("certs: an authority, a server's and a client's certificate; keys are the owner's alone", async () => {
  const dir = at("made");
  const made = await tessera(["certs", dir, "--host", "worker-1,10.0.0.7,::1", "--days", "3"]);
  assert.equal(made.code, 0, made.stderr);
  const names = ["ca", "client", "server"].flatMap((name) => [`${name}.key`, `${name}.pem`]);
  assert.deepEqual(readdirSync(dir).sort(), names);
  const [ca, server, client] = ["ca", "server", "client"].map(
    (name) => new X509Certificate(readFileSync(join(dir, `${name}.pem`))),
  );
  assert.ok(ca !== undefined && server !== undefined && client !== undefined);
  for (const leaf of [server, client]) assert.ok(leaf.verify(ca.publicKey) && !leaf.ca);
  assert.equal(server.checkHost("worker-1"), "worker-1");
  assert.equal(server.checkIP("10.0.0.7"), "10.0.0.7");
  assert.equal(server.checkIP("::1"), "::1");
  assert.equal(server.checkHost("worker-2"), undefined);
  const days = (Date.parse(server.validTo) - Date.now()) / DAY_MS;
  assert.ok(days > 2.9 && days < 3.1, String(days));
  for (const name of ["ca.key", "client.key", "server.key"])
    assert.equal(statSync(join(dir, name)).mode & 0o777, 0o600);

  const before = readFileSync(join(dir, "server.key"));
  const again = await tessera(["certs", dir]);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /server\.key.*: there already, not overwritten/);
  assert.deepEqual(readFileSync(join(dir, "server.key")), before);
});

const noCerts: [string, string[], RegExp][] = [
  ["a name that is none", ["--host", "a b"], /"a b" is no DNS name and no IP address/],
  ["an empty name", ["--host", "a,"], /"" is no DNS name/],
  ["no day", ["--days", "0"], /must be a whole number, 1 to 3650/],
];
for (const [name, args, message] of noCerts)
  test(`certs: ${name} is refused, and nothing is written`, async () => {
    const { code, stderr } = await tessera(["certs", at("none"), ...args]);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.ok(!readdirSync(folder).includes("none"));
  });

const tls = await certificates();
const other = await certificates();
const late = await certificates({ fromMs: Date.now() - 10 * DAY_MS });
writeFileSync(at("empty.pem"), "nothing\n");
writeFileSync(at("bad.yaml"), "keys:\n  - tenant: a b\n");
const WORKER = ["worker", ...MODEL, "--listen"];
const FRONT = ["coordinator", ...MODEL, "--workers", "127.0.0.1:1", "--listen"];
const trio = (cert: string, key: string, ca: string) => [
  ...["--tls-cert", cert, "--tls-key", key, "--tls-ca", ca],
];

const refused: [string, string[], RegExp[]][] = [
  [
    "a front beyond loopback without keys and certificates",
    [...FRONT, "0.0.0.0:0"],
    [/listen: 0\.0\.0\.0 is beyond loopback and needs keys and tls-cert and tls-key/],
  ],
  [
    "a front beyond loopback with certificates alone",
    [...FRONT, "[::]:0", ...trio(tls.server.cert, tls.server.key, tls.server.ca)],
    [/listen: \[::\] is beyond loopback and needs keys;/],
  ],
  [
    "workers beyond loopback without mutual TLS",
    ["coordinator", ...MODEL, "--listen", "127.0.0.1:0", "--workers", "10.0.0.7:1,127.0.0.1:1"],
    [/workers: 10\.0\.0\.7 is beyond loopback and needs tls-cert, tls-key and tls-ca/],
  ],
  [
    "a worker beyond loopback, in what it listens on and what it says",
    [...WORKER, "0.0.0.0:0", "--advertise", "worker-1:0"],
    [/listen: 0\.0\.0\.0 is beyond loopback/, /advertise: worker-1 is beyond loopback/],
  ],
  [
    "a worker that asks its callers for nothing",
    [...WORKER, "127.0.0.1:0", "--tls-cert", tls.server.cert, "--tls-key", tls.server.key],
    [/tls-ca: is missing/],
  ],
  [
    "an authority without a certificate of one's own",
    [...FRONT, "127.0.0.1:0", "--tls-ca", tls.server.ca],
    [/tls-ca: needs tls-cert and tls-key/],
  ],
  [
    "a certificate without its key",
    [...FRONT, "127.0.0.1:0", "--tls-cert", tls.server.cert],
    [/tls-cert and tls-key come together/],
  ],
  [
    "files that are missing, empty or a folder, all at once, beside a bad file of keys",
    [
      ...FRONT,
      "127.0.0.1:0",
      ...trio(at("none.pem"), at("empty.pem"), folder),
      "--keys",
      at("bad.yaml"),
    ],
    [
      /tls-cert: \S+none\.pem there is no such file/,
      /tls-key: \S+empty\.pem holds no PEM private key/,
      /tls-ca: \S+ is a folder/,
      /keys: \S+bad\.yaml: keys\[0\]\.sha256: is missing/,
      /keys\[0\]\.tenant: "a b", must be/,
    ],
  ],
  [
    "a key of another certificate",
    [...WORKER, "127.0.0.1:0", ...trio(tls.server.cert, other.server.key, tls.server.ca)],
    [/tls-key: \S+server\.key is not the key of \S+server\.pem/],
  ],
  [
    "a certificate that has expired",
    [...WORKER, "127.0.0.1:0", ...trio(late.server.cert, late.server.key, late.server.ca)],
    [/tls-cert: \S+server\.pem expired on 20\d\d-/],
  ],
  [
    "a key in the place of a certificate",
    [...WORKER, "127.0.0.1:0", ...trio(tls.server.key, tls.server.key, tls.server.ca)],
    [/tls-cert: \S+server\.key holds no PEM certificate/],
  ],
];
for (const [name, args, messages] of refused)
  test(`start: ${name} is refused`, async () => {
    const { code, stderr } = await tessera(args);
    assert.equal(code, 1, stderr);
    for (const message of messages) assert.match(stderr, message);
  });

test("keys new: the entry has the digest of the key that is printed, and opens a cluster with TLS", async () => {
  const made = await tessera(["keys", "new", "--tenant", "acme"]);
  const [key = "", , ...yaml] = made.stdout.split("\n");
  assert.match(key, /^tessera-[\w-]{43}$/);
  assert.match(yaml.join("\n"), new RegExp(createHash("sha256").update(key).digest("hex")));
  writeFileSync(at("keys.yaml"), yaml.join("\n"));
  const { cert: tlsCert, key: tlsKey, ca: tlsCa } = tls.server;
  const security = { tlsCert, tlsKey, tlsCa, keys: at("keys.yaml") };
  const { cluster, stop } = await serve(2, { security });
  const ask = (args: string[], environment = {}) =>
    tessera(
      ["chat", "--server", cluster.address, "--prompt", "Hello", "--max-tokens", "4", ...args],
      { environment },
    );
  try {
    const flags = ["--tls-ca", tlsCa];
    const served = await ask(flags, { TESSERA_API_KEY: key });
    assert.equal(served.code, 0, served.stderr);
    assert.equal((await ask([...flags, "--api-key", key])).stdout, served.stdout);
    assert.match((await ask(flags)).stderr, /authorization: is missing/);
    assert.match((await ask(["--api-key", key])).stderr, /in plain text: a server with certif/);
    const stranger = await ask(["--api-key", key, "--tls-ca", other.server.ca]);
    assert.match(stranger.stderr, /certificate|issuer|self-signed/);
    const body = {
      model: "nvlm-d-tiny",
      messages: [{ role: "user", content: "Hello" }],
      max_tokens: 4,
    };
    const line = { custom_id: "1", method: "POST", url: "/v1/chat/completions", body };
    writeFileSync(at("in.jsonl"), JSON.stringify(line));
    const batch = await tessera(
      ["batch", "--server", cluster.address, ...flags, "-i", at("in.jsonl"), "-o", at("out.jsonl")],
      { environment: { TESSERA_API_KEY: key } },
    );
    assert.equal(batch.code, 0, batch.stderr);
    assert.match(readFileSync(at("out.jsonl"), "utf8"), /"status_code":200/);
  } finally {
    await stop();
  }
});

test("chat: certificates without a server are refused", async () => {
  const { code, stderr } = await tessera(["chat", ...MODEL, "--tls-ca", tls.server.ca]);
  assert.equal(code, 1);
  assert.match(stderr, /tls: is of --server, which is not given/);
});
