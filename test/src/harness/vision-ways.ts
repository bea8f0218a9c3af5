/** Goldens through clusters that differ in where the vision encoder lies: no bit may change. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PlacementFlags } from "@tessera/cli";
import type { GenerateOnceResponse } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { assertLikeOracle, essence, requestOf, serve } from "./cluster.js";
import { readGoldens, type Golden } from "./goldens.js";

/** `workers` hold the decoder. */
export type Way = Pick<PlacementFlags, "vision" | "visionWorkers"> & { workers: number };

const REPLICATE: Way = { workers: 2, vision: "replicate" };

const nameOf = (way: Way) =>
  Object.entries(way)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");

interface Seen {
  answers: GenerateOnceResponse[];
  encoderRanks: number[];
  vision: string;
  /** That GetCluster lists. */
  ranks: number;
}

/** All goldens' requests together, through a cluster of its own. */
async function answersOf(model: string, way: Way, goldens: Golden[]): Promise<Seen> {
  const { workers, ...flags } = way;
  const requests = await Promise.all(goldens.map(requestOf));
  const { client, stop } = await serve(workers, { model, flags });
  try {
    const answers = await Promise.all(requests.map((request) => client.generateOnce(request)));
    const { placement = assert.fail(), ranks } = await client.getCluster();
    const { vision, encoderRanks } = placement;
    return { answers, encoderRanks, vision, ranks: ranks.length };
  } finally {
    await stop();
  }
}

/** Tests that `ways` answer as the encoder whole on each of two workers does, and that one as the oracle. */
export async function testWays(model: string, ways: readonly Way[]): Promise<void> {
  const goldens = await readGoldens(`${model}.json`);
  let reference: ReturnType<typeof essence>[] = [];

  test(`${model}, ${nameOf(REPLICATE)}: the oracle's tokens`, async () => {
    const { answers, encoderRanks, vision } = await answersOf(model, REPLICATE, goldens);
    goldens.forEach((golden, i) => assertLikeOracle(answers[i], golden));
    assert.deepEqual([vision, encoderRanks], ["replicate", [0, 1]]);
    reference = answers.map(essence);
  });

  for (const way of ways)
    test(`${model}, ${nameOf(way)}: the same tokens to the bit`, async () => {
      const { workers, visionWorkers = 0 } = way;
      const seen = await answersOf(model, way, goldens);
      assert.deepEqual(seen.answers.map(essence), reference);
      const all = Array.from({ length: workers + visionWorkers }, (_, rank) => rank);
      const encoders = visionWorkers > 0 ? all.slice(workers) : all;
      assert.deepEqual([seen.encoderRanks, seen.ranks], [encoders, all.length]);
      assert.equal(seen.vision, way.vision ?? "workers");
    });
}
