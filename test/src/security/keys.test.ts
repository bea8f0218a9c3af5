/** Keys of tenants: who is let in, what of another tenant is seen, and who may drain. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { TesseraClient, TesseraError } from "@tessera/client";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  Inference,
  ResumeRequestSchema,
  type Event,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serve } from "../harness/cluster.js";
import { until } from "../harness/nats.js";
import { checkHealth, reflect } from "../harness/stranger.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-keys-"));
after(() => rmSync(folder, { recursive: true }));
const file = join(folder, "keys.yaml");
const digest = (key: string) => createHash("sha256").update(key).digest("hex");
const entry = (key: string, tenant: string, admin = false) =>
  `  - { sha256: "${digest(key)}", tenant: ${tenant}, admin: ${admin} }\n`;
const KEYS = entry("one", "acme") + entry("two", "other") + entry("root", "operations", true);
writeFileSync(file, `keys:\n${KEYS}`);

const served = await serve(1, { security: { keys: file }, reflection: true });
after(() => served.stop());
const { address } = served.cluster;

function clientOf(apiKey?: string): TesseraClient {
  const key = apiKey === undefined ? {} : { apiKey };
  const client = new TesseraClient({ addresses: [address], deadlineMs: 60_000, ...key });
  after(() => client.close());
  return client;
}
const acme = clientOf("one");
const other = clientOf("two");
const operator = clientOf("root");
const short = { tokenIds: [65, 66, 67], maxTokens: 2 };
const long = { tokenIds: [65, 66, 67], minTokens: 3000, maxTokens: 3000 };

test("keys: no key and a wrong one are refused on every method, before anything else is looked at", async () => {
  for (const [client, message] of [
    [clientOf(), /authorization: is missing/],
    [clientOf("three"), /authorization: the key is not known/],
  ] as const) {
    const calls = [
      () => client.generateOnce({ ...short, maxTokens: 0, model: "another" }),
      () => client.generate(short).next(),
      () => client.countTokens(short),
      () => client.abort("x"),
      () => client.getModel(),
      () => client.getCluster(),
      () => client.drain(),
    ];
    for (const call of calls)
      await assert.rejects(call(), (error: unknown) => {
        assert.ok(error instanceof TesseraError);
        assert.equal(error.code, "UNAUTHENTICATED");
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /three/);
        return true;
      });
  }
});

test("keys: health and reflection are open", async () => {
  assert.equal(await checkHealth(address, "tessera.v1.Inference"), "SERVING");
  const { list_services_response: list } = await reflect(address, { list_services: "" });
  assert.ok((list?.service.length ?? 0) > 0);
});

test("keys: a request of another tenant is not found by Abort, and runs on", async () => {
  const stream = acme.generate({ ...long, requestId: "mine" });
  await stream.next();
  await assert.rejects(other.abort("mine"), { code: "REQUEST_NOT_FOUND" });
  const next = await stream.next();
  assert.equal((next.value as Event | undefined)?.kind.case, "delta");
  await acme.abort("mine");
  let reason = -1;
  for await (const { kind } of stream) if (kind.case === "finished") reason = kind.value.reason;
  assert.equal(reason, 4);
});

test("keys: one id in two tenants is two requests", async () => {
  const stream = acme.generate({ ...long, requestId: "same" });
  await stream.next();
  assert.equal((await other.generateOnce({ ...short, requestId: "same" })).choices.length, 1);
  await assert.rejects(acme.generateOnce({ ...short, requestId: "same" }), {
    code: "REQUEST_EXISTS",
  });
  await stream.return(undefined);
});

/** The code that Resume is refused with, or the number of its events. */
function resume(apiKey: string, requestId: string, resumeToken: string): Promise<string | number> {
  const client = new Client(address, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = serviceDefinition(Inference).resume;
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${apiKey}`);
  const message = create(ResumeRequestSchema, { requestId, resumeToken, fromIndex: 0n });
  const call = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    message,
    metadata,
    { deadline: Date.now() + 20_000 },
  );
  let events = 0;
  return new Promise<string | number>((resolve) => {
    call.on("data", () => events++);
    call.on("error", (error: ServiceError) =>
      resolve(ServeError.fromStatus(error)?.code ?? error.message),
    );
    call.on("end", () => resolve(events));
  }).finally(() => client.close());
}

test("keys: a stream of another tenant is not found by Resume, even with its token", async () => {
  let token = "";
  let events = 0;
  for await (const { kind } of acme.generate({ ...short, requestId: "kept", resume: true })) {
    events++;
    if (kind.case === "started") token = kind.value.resumeToken;
  }
  assert.notEqual(token, "");
  assert.equal(await resume("two", "kept", token), "REQUEST_NOT_FOUND");
  assert.equal(await resume("one", "kept", token), events);
});

test("keys: GetCluster and Drain need an admin's key", async () => {
  for (const call of [() => acme.getCluster(), () => acme.drain()])
    await assert.rejects(call(), { code: "PERMISSION_DENIED" });
  assert.equal((await operator.getCluster()).ranks.length, 1);
  assert.equal((await acme.generateOnce(short)).choices.length, 1);
});

test("keys: SIGHUP reads the file again", async () => {
  const late = clientOf("four");
  await assert.rejects(late.getModel(), { code: "UNAUTHENTICATED" });
  writeFileSync(file, `keys:\n${KEYS}${entry("four", "late")}`);
  const [coordinator] = served.cluster.pids();
  assert.ok(coordinator !== undefined && coordinator > 0);
  process.kill(coordinator, "SIGHUP");
  const name = await until("the new key is known", () =>
    late.getModel().then(
      (model) => model.name,
      () => undefined,
    ),
  );
  assert.equal(name, "nvlm-d-tiny");
});
