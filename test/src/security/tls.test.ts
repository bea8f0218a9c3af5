/** TLS of the front and mutual TLS of Shard and Exchange, of a real cluster in this process. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Client, credentials, Server, type ChannelCredentials } from "@grpc/grpc-js";
import { TesseraClient, TesseraError, type TlsOptions } from "@tessera/client";
import { startCoordinator } from "@tessera/coordinator";
import { frontCredentials, serviceDefinition } from "@tessera/proto";
import {
  GetInfoRequestSchema,
  Shard,
  type GetInfoResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { startWorker, type RunningWorker } from "@tessera/shard-worker";
import { assertLikeOracle, FLAGS, requestOf } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { serveInProcess, type InProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";
import { certificates, DAY_MS, type CertificateSet } from "./certificates.js";

const DEADLINE_MS = 10_000;
const right = await certificates();
const wrong = await certificates();
const named = await certificates({ hosts: ["tessera.test"] });
const expired = await certificates({ fromMs: Date.now() - 10 * DAY_MS, days: 2 });

let cluster: InProcess;
before(async () => {
  cluster = await serveInProcess(2, { tls: right.server }, { tls: right.server });
});
after(() => cluster.close());

async function withClient<T>(
  address: string,
  tls: TlsOptions | undefined,
  work: (client: TesseraClient) => Promise<T>,
): Promise<T> {
  const client = new TesseraClient({
    addresses: [address],
    deadlineMs: DEADLINE_MS,
    ...(tls === undefined ? {} : { tls }),
  });
  return work(client).finally(() => client.close());
}

/** GetInfo of a Shard service. */
function getInfo(address: string, security: ChannelCredentials): Promise<GetInfoResponse> {
  const client = new Client(address, security, { "grpc.use_local_subchannel_pool": 1 });
  const { path, requestSerialize, responseDeserialize } = serviceDefinition(Shard).getInfo;
  return new Promise<GetInfoResponse>((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      create(GetInfoRequestSchema),
      { deadline: Date.now() + DEADLINE_MS },
      (error, response) =>
        error === null && response !== undefined ? resolve(response) : reject(error ?? new Error()),
    );
  }).finally(() => client.close());
}

/** Whether bytes of an Exchange stream get an answer, or the stream an end that is none of TLS. */
function openExchange(address: string, security: ChannelCredentials): Promise<string> {
  const client = new Client(address, security, { "grpc.use_local_subchannel_pool": 1 });
  const same = (bytes: Buffer) => bytes;
  const path = "/tessera.shard.v1.Exchange/Connect";
  const stream = client.makeBidiStreamRequest(path, same, same, {
    deadline: Date.now() + DEADLINE_MS,
  });
  return new Promise<string>((resolve, reject) => {
    stream.on("data", () => undefined);
    stream.once("error", reject);
    stream.once("end", () => resolve("ended by the worker"));
    // No hello: a worker that takes the stream ends it.
    stream.write(Buffer.from("no frame"));
  }).finally(() => client.close());
}

const peer = (of: CertificateSet, name: "server" | "client" = "server") => {
  const { ca, key, cert } = of.pems(name);
  return credentials.createSsl(ca, key, cert);
};
/** Trusts the right server, and shows what `of` has. */
const showing = (of: CertificateSet) => {
  const { key, cert } = of.pems("client");
  return credentials.createSsl(right.ca, key, cert);
};

test("TLS: two workers and a coordinator with certificates answer the golden question", async () => {
  const [golden] = await readGoldens();
  assert.ok(golden !== undefined);
  const request = await requestOf(golden);
  const { address } = cluster.coordinator;
  const answer = await withClient(address, { ca: right.ca }, (client) =>
    client.generateOnce(request, { deadlineMs: 60_000 }),
  );
  assertLikeOracle(answer, golden);
});

const strangers: [string, TlsOptions | undefined, RegExp][] = [
  ["trusts another authority", { ca: wrong.ca }, /certificate|issuer|self-signed/],
  ["trusts the system's authorities", {}, /certificate|issuer|self-signed/],
  ["asks for another name", { ca: right.ca, serverName: "tessera.test" }, /altnames|tessera\.test/],
  ["speaks plain text", undefined, /Failed to connect|closed|reset|dropped/i],
];
for (const [name, tls, message] of strangers)
  test(`TLS: a user's client that ${name} is not served`, async () => {
    const { address } = cluster.coordinator;
    await assert.rejects(
      withClient(address, tls, (client) => client.getModel()),
      (error: unknown) => {
        assert.ok(error instanceof TesseraError);
        assert.equal(error.code, "TRANSPORT");
        assert.match(error.message, message);
        return true;
      },
    );
  });

test("TLS: a server's certificate that has expired is not taken", async () => {
  const server = new Server();
  const security = frontCredentials(expired.pems("server"));
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", security, (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const asked = withClient(`127.0.0.1:${port}`, { ca: expired.ca }, (client) => client.getModel());
  await assert
    .rejects(asked, { code: "TRANSPORT", message: /certificate has expired/ })
    .finally(() => server.forceShutdown());
});

const peers: [string, ChannelCredentials][] = [
  ["no certificate", credentials.createSsl(right.ca)],
  ["the certificate of another authority", showing(wrong)],
  ["plain text", credentials.createInsecure()],
];

test("mTLS: a peer with a certificate reaches Shard and Exchange", async () => {
  const address = cluster.workers[0]?.address ?? "";
  for (const name of ["server", "client"] as const) {
    const { exchangeAddress } = await getInfo(address, peer(right, name));
    assert.equal(await openExchange(exchangeAddress, peer(right, name)), "ended by the worker");
  }
});

for (const [name, security] of peers)
  test(`mTLS: a peer with ${name} reaches neither Shard nor Exchange`, async () => {
    const address = cluster.workers[0]?.address ?? "";
    const { exchangeAddress } = await getInfo(address, peer(right));
    await assert.rejects(getInfo(address, security), { code: 14 });
    await assert.rejects(openExchange(exchangeAddress, security), { code: 14 });
  });

const COMMON = { modelDir: root("models/nvlm-d-tiny"), listen: "127.0.0.1:0", logLevel: "fatal" };
const REST = {
  kvType: "f32",
  wireType: "f32",
  chatTemplate: "nvlm",
  maxRequests: 4,
  stepDeadlineMs: FLAGS.stepDeadlineMs,
  reflection: false,
} as const;

test("mTLS: a peer with a certificate that has expired is refused by the worker", async () => {
  // The worker trusts the authority that signed it: the date alone is wrong.
  const { ca } = expired.server;
  await assert.rejects(startWorker({ ...COMMON, threads: 1, tls: expired.server }), {
    code: "CONFIGURATION",
    message: /tls-cert: .*server\.pem expired on 20\d\d-/,
  });
  const worker = await startWorker({ ...COMMON, threads: 1, tls: { ...right.server, ca } });
  const { key, cert } = expired.pems("client");
  const late = credentials.createSsl(right.ca, key, cert);
  await assert.rejects(getInfo(worker.address, late), { code: 14 }).finally(() => worker.close());
});

const wrongWorkers: [string, CertificateSet, RegExp][] = [
  ["of another authority", wrong, /certificate|issuer|self-signed/],
  ["for another host", named, /altnames|127\.0\.0\.1/],
];
for (const [name, set, message] of wrongWorkers)
  test(`mTLS: workers with certificates ${name} form no group, and nothing is served`, async () => {
    const worker: RunningWorker = await startWorker({ ...COMMON, threads: 1, tls: set.server });
    // Of the second row the coordinator trusts the authority, but not the name.
    const tls = set === named ? named.server : right.server;
    const workers = [worker.address];
    const coordinator = await startCoordinator({ ...COMMON, ...REST, workers, tls });
    const own = set === named ? named : right;
    const options = { ca: own.ca, ...(set === named ? { serverName: "tessera.test" } : {}) };
    try {
      await assert.rejects(
        withClient(coordinator.address, options, (client) =>
          client.generateOnce({ tokenIds: [65], maxTokens: 1 }, { deadlineMs: 5000 }),
        ),
        { code: "NOT_READY" },
      );
      await assert.rejects(getInfo(worker.address, peer(own)), { code: 14, details: message });
    } finally {
      await coordinator.close();
      await worker.close();
    }
  });
