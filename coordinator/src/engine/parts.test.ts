/** Where the vision encoder lies: by the options, and with `auto` by the workers' memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { KV_TYPES, openModel, rankBytes } from "@tessera/model";
import { KvType, VisionPlacement } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import { checkOptions, tensorParallelSize, type CoordinatorOptions } from "./options.js";
import { choosePlan, memoryShares, plansOf, settingsOf } from "./parts.js";

const model = await openModel(
  fileURLToPath(new URL("../../../models/nvlm-d-tiny", import.meta.url)),
);
const HOST_PORT = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"];

function optionsOf(change: Partial<CoordinatorOptions>): CoordinatorOptions {
  return {
    modelDir: model.dir,
    listen: "127.0.0.1:0",
    workers: HOST_PORT.slice(0, 2),
    kvType: "f32",
    wireType: "f32",
    chatTemplate: "nvlm",
    maxRequests: 4,
    stepDeadlineMs: 1000,
    reflection: false,
    logLevel: "fatal",
    ...change,
  };
}

const choicesOf = (change: Partial<CoordinatorOptions>) => {
  const [first, ...others] = plansOf(model, optionsOf(change)).map((plan) => ({ plan }));
  assert.ok(first);
  return [first, ...others] as [typeof first, ...typeof others];
};
const apart = (...memoryBytes: number[]) =>
  memoryBytes.map((bytes, i) => ({ address: `10.0.0.${i}:4000`, memoryBytes: bytes }));
const together = (count: number, memoryBytes: number) =>
  Array.from({ length: count }, (_, i) => ({ address: `127.0.0.1:${i + 1}`, memoryBytes }));

const auto = choicesOf({});
const [whole, cut] = auto.map(({ plan }) => Math.max(...plan.ranks.map(rankBytes)));
assert.ok(whole !== undefined && cut !== undefined);

test("auto: the choices are the encoder whole, then cut, and differ in nothing else of the placement", () => {
  const [first, second] = auto.map(({ plan }) => settingsOf(optionsOf({}), "m", plan, 9));
  assert.ok(first && second);
  const { vision, ...rest } = second.placement;
  assert.equal(vision, VisionPlacement.TENSOR);
  assert.deepEqual(first.placement, { ...rest, vision: VisionPlacement.REPLICATE });
  assert.notEqual(first.planHash, second.planHash);
  assert.ok(cut < whole, `${cut} ${whole}`);
});

test("settingsOf: each type of cache is told, and has a plan hash of its own", () => {
  const all = KV_TYPES.map((kvType) => {
    const [plan] = plansOf(model, optionsOf({ kvType }));
    return settingsOf(optionsOf({ kvType }), "m", plan, 9);
  });
  assert.deepEqual(
    all.map(({ placement }) => placement.kvType),
    [KvType.F32, KvType.BF16, KvType.INT8],
  );
  assert.equal(new Set(all.map(({ planHash }) => planHash)).size, 3);
});

for (const [name, workers, vision] of [
  ["just enough for all of it on each", apart(whole, whole), "replicate"],
  ["a byte too little on one", apart(whole, whole - 1), "tensor"],
  ["enough for both on the host they share", together(2, 2 * whole), "replicate"],
  ["too little on the host they share", together(2, 2 * whole - 1), "tensor"],
  ["too little for either", apart(1, 1), "tensor"],
] as const)
  test(`auto: ${name}: ${vision}`, () => {
    assert.equal(choosePlan(auto, workers).plan.vision, vision);
  });

test("memoryShares: only those of one host that report the same memory share it", () => {
  const workers = [
    { address: "10.0.0.1:4001", memoryBytes: 64 },
    { address: "10.0.0.1:4002", memoryBytes: 64 },
    { address: "10.0.0.1:4003", memoryBytes: 10 },
    { address: "10.0.0.2:4001", memoryBytes: 64 },
  ];
  assert.deepEqual(memoryShares(workers), [32, 32, 10, 64]);
});

for (const [change, visions] of [
  [{ vision: "replicate" }, ["replicate"]],
  [{ vision: "tensor" }, ["tensor"]],
  [{ workers: HOST_PORT.slice(0, 1) }, ["replicate"]],
  [{ workers: HOST_PORT, visionWorkers: 2 }, ["workers"]],
  [{ workers: undefined, nats: "nats://x", tensorParallel: 4, visionWorkers: 1 }, ["workers"]],
] as const satisfies readonly (readonly [Partial<CoordinatorOptions>, readonly string[]])[])
  test(`${JSON.stringify(change)}: ${visions.join()}`, () => {
    const plans = plansOf(model, optionsOf(change));
    assert.deepEqual(
      plans.map(({ vision }) => vision),
      visions,
    );
  });

test("vision-workers: the last of the workers, or leases beyond the tensor-parallel ones", () => {
  const listed = optionsOf({ workers: HOST_PORT, visionWorkers: 2 });
  const leased = optionsOf({ workers: undefined, nats: "nats://x", tensorParallel: 4 });
  assert.equal(tensorParallelSize(listed), 2);
  assert.equal(tensorParallelSize({ ...leased, visionWorkers: 3 }), 4);
  for (const options of [listed, { ...leased, visionWorkers: 3 }]) {
    const [plan] = plansOf(model, options);
    const { encoderCount, ranks } = plan;
    assert.deepEqual(
      ranks.map(({ encodes, kvHeads }) => [encodes, kvHeads > 0]),
      ranks.map((_, rank) => [rank >= plan.size, rank < plan.size]),
    );
    assert.equal(encoderCount, options.visionWorkers);
  }
});

for (const [change, message] of [
  [{ visionWorkers: 0 }, /vision-workers: 0, must be a whole number above 0/],
  [{ visionWorkers: 1.5 }, /vision-workers: 1.5, must be a whole number above 0/],
  [{ visionWorkers: 2 }, /vision-workers: 2 of 2 workers, one at least must hold the decoder/],
  [{ visionWorkers: 1, vision: "tensor" }, /vision: tensor beside vision-workers 1/],
  [{ visionWorkers: 1, vision: "replicate" }, /vision: replicate beside vision-workers 1/],
] as const satisfies readonly (readonly [Partial<CoordinatorOptions>, RegExp])[])
  test(`options ${JSON.stringify(change)} are refused: ${message.source}`, () => {
    assert.throws(() => checkOptions(optionsOf(change)), { code: "CONFIGURATION", message });
  });

test("options: more encoders than a group may have are refused by name and value", () => {
  const workers = Array.from({ length: 66 }, (_, i) => `127.0.0.1:${i + 1}`);
  assert.throws(() => plansOf(model, optionsOf({ workers, visionWorkers: 65 })), {
    message: /vision-workers 65: must be 1…64/,
  });
});
