/** A full server refuses at once, with the quota and when to try again; counting takes a place as well. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Client, credentials, status, type ServiceError } from "@grpc/grpc-js";
import { TesseraClient } from "@tessera/client";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  CountTokensRequestSchema,
  GenerateOnceRequestSchema,
  Inference,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { serveInProcess } from "../harness/in-process.js";

const served = await serveInProcess(1, { maxRequests: 1 });
const client = new TesseraClient({ addresses: [served.coordinator.address], deadlineMs: 30_000 });
after(async () => {
  client.close();
  await served.close();
});

const tokenIds = [65, 66, 67];

/** Sent once: the SDK would try again. */
const raw = new Client(served.coordinator.address, credentials.createInsecure());
after(() => raw.close());
const { generateOnce, countTokens } = serviceDefinition(Inference);
const request = { tokenIds, maxTokens: 1 };
const attempts: [string, (settle: (error: ServiceError | null) => void) => void][] = [
  [
    "GenerateOnce",
    (settle) => {
      const message = create(GenerateOnceRequestSchema, { request });
      const { path, requestSerialize, responseDeserialize } = generateOnce;
      const settings = { deadline: Date.now() + 10_000 };
      raw.makeUnaryRequest(path, requestSerialize, responseDeserialize, message, settings, settle);
    },
  ],
  [
    "CountTokens",
    (settle) => {
      const message = create(CountTokensRequestSchema, { request });
      const { path, requestSerialize, responseDeserialize } = countTokens;
      const settings = { deadline: Date.now() + 10_000 };
      raw.makeUnaryRequest(path, requestSerialize, responseDeserialize, message, settings, settle);
    },
  ],
];

async function assertRefused(): Promise<void> {
  for (const [name, attempt] of attempts) {
    const error = (await new Promise<ServiceError | null>(attempt)) ?? assert.fail(name);
    assert.equal(error.code, status.RESOURCE_EXHAUSTED, name);
    const said = ServeError.fromStatus(error);
    assert.deepEqual(
      [said?.code, said?.quota, said?.retryDelayMs],
      ["OVERLOADED", "requests", 1000],
    );
    assert.match(error.details, /1 requests run or wait, limit 1/);
  }
}

test("while one request runs at a limit of one, others are refused; then they are taken again", async () => {
  let seen = 0;
  for await (const { kind } of client.generate({ tokenIds, minTokens: 2000, maxTokens: 2000 })) {
    if (kind.case !== "delta" || seen++ > 0) continue;
    await assertRefused();
  }
  assert.ok(seen > 0);
  const { usage } = await client.generateOnce({ tokenIds, maxTokens: 1, minTokens: 1 });
  assert.equal(usage?.completionTokens, 1);
  const counted = await client.countTokens({ tokenIds });
  assert.equal(counted.promptTokens, 3);
});
