/**
 * The same embeddings and answers wherever the vision encoder lies: whole on each rank, cut over them, on ranks of its
 * own.
 */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import type { VisionPlacement } from "@tessera/model";
import { cpuKind } from "@tessera/native/engine";
import { closeGroup, goldenTiles, openGroup } from "../harness/engines.js";
import { answersOf, assertLikeOracle, type Answer } from "../harness/golden-runner.js";
import { readGoldens } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

interface Way {
  size: number;
  vision: VisionPlacement;
  encoders: number;
}

const WAYS: Way[] = [
  { size: 2, vision: "tensor", encoders: 0 },
  { size: 4, vision: "tensor", encoders: 0 },
  { size: 8, vision: "tensor", encoders: 0 },
  { size: 1, vision: "workers", encoders: 1 },
  { size: 2, vision: "workers", encoders: 2 },
];
const nameOf = ({ size, vision, encoders }: Way) => `${size} ranks, ${vision} ${encoders || ""}`;

const CPU_KINDS = ["scalar", "avx2", "avx512"];
/** This machine's. */
const kinds = CPU_KINDS.slice(0, CPU_KINDS.indexOf(cpuKind()) + 1);

afterEach(() => {
  delete process.env["TESSERA_CPU"];
});

/** Of some tiles together, what each encoder stores. */
async function embeddingsOf(dir: string, way: Way, tiles: Uint8Array[]): Promise<Float32Array[]> {
  const engines = await openGroup(dir, { ...way, kvType: "f32", selectableIds: 1024 });
  try {
    const ranks = way.vision === "workers" ? engines.slice(way.size) : engines;
    const outcomes = await Promise.all(
      ranks.map((engine, i) =>
        engine.encode({
          epoch: 1n,
          encodeId: 1n,
          tiles: tiles.map((pixels, k) => ({ embeddingId: BigInt(100 * i + k), pixels })),
          capture: ["projector.output"],
        }),
      ),
    );
    return outcomes.map(({ captured }) => captured["projector.output"] ?? assert.fail());
  } finally {
    await closeGroup(engines);
  }
}

for (const variant of ["d", "x", "h"]) {
  const dir = root(`models/nvlm-${variant}-tiny`);
  const goldens = await readGoldens(`nvlm-${variant}-tiny.json`);
  const [tiles = []] = await goldenTiles(["document-05.png"]);
  let reference: Answer[] = [];
  let whole: Float32Array | undefined;

  test(`nvlm-${variant}-tiny, encoder whole on one rank: the oracle's tokens`, async () => {
    reference = await answersOf(goldens, dir, { size: 1, kvType: "f32", chunk: 1000 });
    assertLikeOracle(reference, goldens);
    [whole] = await embeddingsOf(dir, { size: 1, vision: "replicate", encoders: 0 }, tiles);
    assert.ok(whole !== undefined && whole.length > 0);
  });

  for (const way of WAYS)
    test(`nvlm-${variant}-tiny, ${nameOf(way)}: the same embeddings and answers to the bit`, async () => {
      for (const values of await embeddingsOf(dir, way, tiles)) assert.deepEqual(values, whole);
      const answers = await answersOf(goldens, dir, { ...way, kvType: "f32", chunk: 1000 });
      assert.deepEqual(answers, reference);
    });

  // The encoders differ in their projectors only.
  for (const kind of variant === "d" ? kinds : [])
    test(`nvlm-${variant}-tiny, ${kind}: the same embeddings to the bit, cut and whole`, async () => {
      process.env["TESSERA_CPU"] = kind;
      for (const way of WAYS)
        for (const values of await embeddingsOf(dir, way, tiles)) assert.deepEqual(values, whole);
    });
}
