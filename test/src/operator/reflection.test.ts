/** What grpcurl's list and describe ask, of a real cluster. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { DescMessage } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { Inference } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { Shard } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { serve } from "../harness/cluster.js";
import { checkHealth, filesOf, reflect } from "../harness/stranger.js";

const served = await serve(1, { reflection: true });
after(served.stop);
const front = served.cluster.address;
const worker = (await served.client.getCluster()).ranks[0]?.address ?? "";

async function servicesOf(address: string): Promise<string[] | undefined> {
  const { list_services_response } = await reflect(address, { list_services: "*" });
  return list_services_response?.service.map(({ name }) => name).sort();
}

test("list: the coordinator names Inference, Cluster and Health, the worker Shard and Health", async () => {
  const health = "grpc.health.v1.Health";
  assert.deepEqual(await servicesOf(front), [health, "tessera.v1.Cluster", "tessera.v1.Inference"]);
  assert.deepEqual(await servicesOf(worker), [health, "tessera.shard.v1.Shard"]);
});

/** Name, number and presence of each field. */
function fieldsOf(message: DescMessage) {
  const { IMPLICIT } = FeatureSet_FieldPresence;
  return message.fields.map((field) => {
    const optional = field.presence !== IMPLICIT && field.proto.proto3Optional;
    return [field.name, field.number, optional];
  });
}

test("describe: Inference and its request with every field, as the protos have them", async () => {
  const files = await filesOf(front, "tessera.v1.Inference");
  const services = files.flatMap((file) => file.service);
  const inference = services.find(({ name }) => name === "Inference");
  assert.deepEqual(
    inference?.method.map(({ name, inputType }) => [name, inputType]),
    Inference.methods.map(({ name, input }) => [name, `.${input.typeName}`]),
  );
  const request = files
    .flatMap((file) => file.messageType)
    .find(({ name }) => name === "GenerateRequest");
  assert.deepEqual(
    request?.field.map(({ name, number, proto3Optional }) => [name, number, proto3Optional]),
    fieldsOf(Inference.method.generate.input),
  );
  const names = files.map(({ name }) => name);
  assert.ok(names.includes("google/protobuf/struct.proto"), names.join());
});

test("describe: a message, a method and a nested message are found; an unknown symbol is NOT_FOUND", async () => {
  const symbols = ["tessera.v1.Sampling", "tessera.v1.Cluster.Drain", "tessera.v1.Sampling.seed"];
  for (const symbol of symbols) assert.ok((await filesOf(front, symbol)).length > 0, symbol);
  const shard = await filesOf(worker, "tessera.shard.v1.StepPlan");
  assert.ok(shard.some(({ service }) => service.some(({ name }) => name === Shard.name)));
  const { error_response } = await reflect(front, { file_containing_symbol: "tessera.v1.Nothing" });
  assert.equal(error_response?.error_code, 5);
});

test("reflection is off by default", async () => {
  const plain = await serve(1);
  after(plain.stop);
  await assert.rejects(reflect(plain.cluster.address, { list_services: "*" }), /UNIMPLEMENTED/);
  assert.equal(await checkHealth(plain.cluster.address, ""), "SERVING");
});
