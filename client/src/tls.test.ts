/** TLS against a real gRPC server, with certificates made here. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type sendUnaryData } from "@grpc/grpc-js";
import { serviceDefinition } from "@tessera/proto";
import {
  CountTokensResponseSchema,
  Inference,
  type CountTokensResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { TlsOptions } from "./channels.js";
import { TesseraClient } from "./client.js";
import { TesseraError } from "./error.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-tls-"));
after(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);
const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "pipe" });

function makeAuthority(name: string): void {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const out = ["-keyout", at(`${name}.key`), "-out", at(`${name}.pem`)];
  openssl("req", "-x509", ...key, ...out, "-days", "2", "-subj", `/CN=${name}`);
}

/** Signed by `authority`, for 127.0.0.1 or a name. */
function makeCertificate(name: string, authority: string, subjectAltName: string): void {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    "req",
    "-new",
    ...key,
    "-keyout",
    at(`${name}.key`),
    "-out",
    at(`${name}.csr`),
    "-subj",
    `/CN=${name}`,
  );
  writeFileSync(at(`${name}.ext`), `subjectAltName=${subjectAltName}\n`);
  const signer = [
    "-CA",
    at(`${authority}.pem`),
    "-CAkey",
    at(`${authority}.key`),
    "-CAcreateserial",
  ];
  const files = [
    "-in",
    at(`${name}.csr`),
    "-out",
    at(`${name}.pem`),
    "-extfile",
    at(`${name}.ext`),
  ];
  openssl("x509", "-req", ...files, ...signer, "-days", "2");
}

const pem = (name: string) => readFileSync(at(name));
makeAuthority("right");
makeAuthority("wrong");
makeCertificate("local", "right", "IP:127.0.0.1");
makeCertificate("named", "right", "DNS:tessera.test");
makeCertificate("user", "right", "DNS:user");

async function serve(certificate: string, askClient: boolean): Promise<string> {
  const server = new Server();
  const { countTokens } = serviceDefinition(Inference);
  server.addService(
    { countTokens },
    {
      countTokens: (_: unknown, reply: sendUnaryData<CountTokensResponse>) =>
        reply(null, create(CountTokensResponseSchema, { promptTokens: 7 })),
    },
  );
  const pair = { private_key: pem(`${certificate}.key`), cert_chain: pem(`${certificate}.pem`) };
  const security = ServerCredentials.createSsl(pem("right.pem"), [pair], askClient);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", security, (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  after(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

const local = await serve("local", false);
const named = await serve("named", false);
const asking = await serve("local", true);

async function count(address: string, tls?: TlsOptions): Promise<number> {
  const client = new TesseraClient({
    addresses: [address],
    deadlineMs: 10_000,
    ...(tls === undefined ? {} : { tls }),
  });
  try {
    return (await client.countTokens({})).promptTokens;
  } finally {
    client.close();
  }
}

function unreachable(message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof TesseraError, String(error));
    assert.equal(error.code, "TRANSPORT");
    assert.match(error.message, message);
    return true;
  };
}

const ca = pem("right.pem");

test("TLS: the right authority is trusted", async () => {
  assert.equal(await count(local, { ca }), 7);
});

test("TLS: the wrong authority fails and says so, and so does plain text", async () => {
  await assert.rejects(count(local, { ca: pem("wrong.pem") }), unreachable(/certificate|issuer/));
  await assert.rejects(count(local, {}), unreachable(/certificate|issuer/));
  await assert.rejects(count(local), unreachable(/./));
});

test("TLS: a certificate of another name fails, and serves under serverName", async () => {
  await assert.rejects(count(named, { ca }), unreachable(/altnames|IP/));
  assert.equal(await count(named, { ca, serverName: "tessera.test" }), 7);
});

test("TLS: a server that asks for a certificate takes the client's and refuses none", async () => {
  assert.equal(await count(asking, { ca, cert: pem("user.pem"), key: pem("user.key") }), 7);
  await assert.rejects(count(asking, { ca }), unreachable(/./));
});
