/** Bad input: each refused with its status and a message that names the field, and a neighbour is not disturbed. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { Client, credentials, status, type ServiceError } from "@grpc/grpc-js";
import { TesseraError, type GenerateInput } from "@tessera/client";
import { GRPC_STATUS, type ServeErrorCode } from "@tessera/proto";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

const { client, cluster, stop } = await serve(1);
after(stop);
const picture = await readFile(root("models/documents/document-01.png"));
const jpeg = await readFile(root("models/documents/document-06.jpg"));
const gif = await readFile(root("test/goldens/resize/animated-gif.gif"));

function ask(...images: { data: Uint8Array; mediaType?: string }[]): GenerateInput {
  const parts = images.map((value) => ({ content: { case: "image" as const, value } }));
  const text = { content: { case: "text" as const, value: "What is the name?" } };
  return { messages: [{ role: Role.USER, parts: [...parts, text] }], maxTokens: 4 };
}

/** A PNG header that claims a size. */
function claim(width: number, height: number): Uint8Array {
  const bytes = Buffer.from(picture);
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  return bytes;
}

const good = ask({ data: picture });
const rows: [string, GenerateInput, ServeErrorCode, RegExp][] = [
  ["not an image", ask({ data: Buffer.from("hello") }), "INVALID_IMAGE", /no picture/],
  [
    "a truncated JPEG",
    ask({ data: jpeg.subarray(0, jpeg.length / 2) }),
    "INVALID_IMAGE",
    /cannot be decoded/,
  ],
  [
    "a PNG of 60000 × 60000",
    ask({ data: claim(60000, 60000) }),
    "INVALID_IMAGE",
    /60000 × 60000.*limit 16384/,
  ],
  ["a GIF", ask({ data: gif }), "INVALID_IMAGE", /GIF/],
  ["a TIFF", ask({ data: Buffer.from("II*\0aaaaaaaaaaaa") }), "INVALID_IMAGE", /TIFF/],
  [
    "an SVG",
    ask({ data: Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'/>") }),
    "INVALID_IMAGE",
    /SVG/,
  ],
  ["zero bytes", ask({ data: Buffer.alloc(0) }), "INVALID_IMAGE", /0 bytes/],
  ["1 × 10000", ask({ data: claim(1, 10000) }), "INVALID_IMAGE", /1 × 10000.*limit 200:1/],
  ["0 × 0", ask({ data: claim(0, 0) }), "INVALID_IMAGE", /0 × 0/],
  [
    "17 images",
    ask(...Array<{ data: Uint8Array }>(17).fill({ data: picture })),
    "INVALID_ARGUMENT",
    /17 images, limit 16/,
  ],
  [
    "too many image bytes",
    ask({ data: Buffer.concat([picture, Buffer.alloc(21 << 20)]) }),
    "INVALID_IMAGE",
    /limit 20971520/,
  ],
  [
    "a declared type that lies",
    ask({ data: picture, mediaType: "image/jpeg" }),
    "INVALID_IMAGE",
    /is image\/png, declared/,
  ],
  ["no messages", { messages: [] }, "INVALID_ARGUMENT", /messages: are empty/],
  [
    "an unknown role",
    { messages: [{ role: 9 as Role, parts: [] }] },
    "INVALID_ARGUMENT",
    /role: is 9/,
  ],
  [
    "a prompt beyond the context",
    { tokenIds: Array<number>(5000).fill(65) },
    "CONTEXT_TOO_LONG",
    /5000 tokens.*4096/,
  ],
  ["max_tokens 0", { ...good, maxTokens: 0 }, "INVALID_ARGUMENT", /max_tokens: is 0/],
  ["max_tokens beyond", { ...good, maxTokens: 4097 }, "INVALID_ARGUMENT", /max_tokens: is 4097/],
  [
    "temperature −1",
    { ...good, sampling: { temperature: -1 } },
    "INVALID_ARGUMENT",
    /temperature: is -1/,
  ],
  [
    "temperature NaN",
    { ...good, sampling: { temperature: NaN } },
    "INVALID_ARGUMENT",
    /temperature: is NaN/,
  ],
  ["top_p 0", { ...good, sampling: { topP: 0 } }, "INVALID_ARGUMENT", /top_p: is 0/],
  ["top_p 1.1", { ...good, sampling: { topP: 1.1 } }, "INVALID_ARGUMENT", /top_p: is 1.1/],
  ["n 0", { ...good, n: 0 }, "INVALID_ARGUMENT", /n: is 0/],
  ["n 99", { ...good, n: 99 }, "INVALID_ARGUMENT", /n: is 99, must be 1…16/],
  [
    "100 stops",
    { ...good, stop: { texts: Array<string>(100).fill("a") } },
    "INVALID_ARGUMENT",
    /100 entries, limit 16/,
  ],
  [
    "bias out of vocabulary",
    { ...good, sampling: { logitBias: { 5000: 1 } } },
    "INVALID_ARGUMENT",
    /logit_bias: have 5000/,
  ],
  [
    "token ids out of vocabulary",
    { tokenIds: [1, 99999] },
    "INVALID_ARGUMENT",
    /token_ids: have 99999/,
  ],
  ["a wrong model", { ...good, model: "gpt" }, "MODEL_NOT_FOUND", /"gpt"/],
  [
    "a constraint that is no JSON",
    { ...good, constraint: { kind: { case: "jsonSchema", value: "{" } } },
    "INVALID_ARGUMENT",
    /constraint\.json_schema: is no JSON/,
  ],
  [
    "prompt_logprobs 99",
    { ...good, promptLogprobs: 99 },
    "INVALID_ARGUMENT",
    /prompt_logprobs: is 99/,
  ],
  ["a bad request id", { ...good, requestId: "a b" }, "INVALID_ARGUMENT", /request_id/],
];

const undisturbed = essence(await client.generateOnce({ ...good, maxTokens: 40, minTokens: 40 }));

test("bad input: a neighbour's answer is the same while all of it is refused", async () => {
  const neighbour = client.generateOnce({ ...good, maxTokens: 40, minTokens: 40 });
  await Promise.allSettled(rows.map(([, request]) => client.generateOnce(request)));
  assert.deepEqual(essence(await neighbour), undisturbed);
});

for (const [name, request, code, message] of rows)
  test(`bad input: ${name} is ${code}`, async () => {
    await assert.rejects(client.generateOnce(request), (error: unknown) => {
      assert.ok(error instanceof TesseraError);
      assert.equal(error.code, code, error.message);
      assert.equal(error.grpcStatus, GRPC_STATUS[code], error.message);
      assert.match(error.message, message);
      const [violation] = error.violations;
      assert.ok(violation !== undefined && error.message.includes(violation.field));
      return true;
    });
  });

test("a running request id is refused, and Abort ends the running one", async () => {
  const endless = { ...good, requestId: "mine", maxTokens: 3000, minTokens: 3000 };
  const reasons = [];
  for await (const { kind } of client.generate(endless)) {
    if (kind.case === "started") {
      await assert.rejects(client.generateOnce(endless), /is running/);
      await client.abort("mine");
    }
    if (kind.case === "finished") reasons.push(kind.value.reason);
  }
  assert.deepEqual(reasons, [4]);
  await assert.rejects(client.abort("mine"), /is not running/);
});

/** As a client without limits of its own sends it. */
function sendRaw(bytes: Buffer): Promise<ServiceError | null> {
  const raw = new Client(cluster.address, credentials.createInsecure(), {
    "grpc.max_send_message_length": -1,
  });
  const same = (message: Buffer) => message;
  const settings = { deadline: Date.now() + 30_000 };
  return new Promise<ServiceError | null>((resolve) => {
    const path = "/tessera.v1.Inference/GenerateOnce";
    raw.makeUnaryRequest(path, same, same, bytes, settings, (error) => resolve(error));
  }).finally(() => raw.close());
}

test("a message above the gRPC limit is RESOURCE_EXHAUSTED with limit and value; a neighbour is undisturbed", async () => {
  const neighbour = client.generateOnce({ ...good, maxTokens: 40, minTokens: 40 });
  const error = await sendRaw(Buffer.alloc((64 << 20) + 1));
  assert.equal(error?.code, status.RESOURCE_EXHAUSTED);
  assert.match(error?.details ?? "", /67108865.*67108864/);
  assert.deepEqual(essence(await neighbour), undisturbed);
});

test("the SDK refuses to send a message above the limit", async () => {
  const big = ask(...Array<{ data: Uint8Array }>(4).fill({ data: Buffer.alloc(17 << 20) }));
  await assert.rejects(client.generateOnce(big), (error: unknown) => {
    assert.ok(error instanceof TesseraError);
    assert.equal(error.grpcStatus, status.RESOURCE_EXHAUSTED);
    return true;
  });
});

test("after Drain new requests are refused", async () => {
  await client.drain();
  await assert.rejects(client.generateOnce(good), (error: unknown) => {
    assert.ok(error instanceof TesseraError);
    assert.equal(error.code, "DRAINING");
    assert.equal(error.grpcStatus, status.UNAVAILABLE);
    assert.match(error.message, /draining/);
    return true;
  });
});
