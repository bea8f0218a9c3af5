/** The vision encoder cut over ranks: every stored value on one rank, or on all where it is not cut. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseConfig } from "../config.js";
import type { Op, Program } from "../program.js";
import { tensorShapes } from "../tensors.js";
import { rankProgram } from "./index.js";
import { assertTiled, pieces } from "./pieces.fixture.js";

/** Every rank needs them whole. */
const WHOLE = /embeddings|norm1|norm2|\.ls[12]$|attn\.proj\.bias|fc2\.bias|^mlp1\.0\./;

async function configOf(model: string) {
  const path = fileURLToPath(new URL(`../../../${model}/config.json`, import.meta.url));
  return parseConfig(JSON.parse(await readFile(path, "utf8")));
}

/** Of what an encode enters together, in order: the widths. */
function collectives({ segments, buffers }: Program): (number | undefined)[] {
  return segments.flatMap(({ collective }) =>
    collective === null ? [] : [buffers[collective.buffer]?.width],
  );
}

for (const model of ["test/fixtures/nvlm-d-72b", "models/nvlm-d-tiny", "models/nvlm-x-tiny"]) {
  const config = await configOf(model);
  const shapes = [...tensorShapes(config)].filter(([name]) => /^(vision_model|mlp1)\./.test(name));

  for (const size of [2, 4, 8]) {
    const ranks = Array.from({ length: size }, (_, rank) =>
      rankProgram(config, { rank, size, vision: "tensor" }),
    );

    test(`${model}, vision tensor over ${size}: every value is held once, what is not cut by every rank`, () => {
      const all = ranks.map(({ encode }) => pieces(encode));
      for (const [name, shape] of shapes) {
        const held = all.map((list) => list.filter(({ tensor }) => tensor === name));
        const flat = /class_embedding|position_embedding/.test(name);
        const stored = flat ? [1, shape.reduce((a, b) => a * b, 1)] : shape;
        for (const list of WHOLE.test(name) ? held : [held.flat()]) assertTiled(list, stored, name);
      }
    });

    test(`${model}, vision tensor over ${size}: three sums a layer and one at the end, nothing is sent`, () => {
      const { layers, hiddenSize } = config.vision;
      const layer = [2, hiddenSize, hiddenSize];
      const want = [
        ...Array.from({ length: layers }, () => layer).flat(),
        config.decoder.hiddenSize,
      ];
      for (const { encode } of ranks) {
        assert.deepEqual(collectives(encode), want);
        const store = encode.segments.at(-1)?.ops.at(-1);
        assert.deepEqual(store?.op === "store_embeddings" && store.share, false);
      }
    });
  }

  test(`${model}, vision workers: the encoder whole on its ranks, on the others not at all`, () => {
    const cut = { size: 2, vision: "workers" } as const;
    const whole = rankProgram(config, { rank: 0, size: 1 });
    for (const rank of [2, 3]) {
      const { encode, step, cache } = rankProgram(config, { ...cut, rank });
      assert.deepEqual(encode, whole.encode);
      assert.deepEqual([step.segments, cache.layers], [[], 0]);
    }
    for (const rank of [0, 1]) {
      const { encode, step } = rankProgram(config, { ...cut, rank });
      assert.deepEqual(encode.segments, []);
      assert.deepEqual(step, rankProgram(config, { rank, size: 2 }).step);
    }
  });
}

test("NVLM-D-72B over 8: head groups of 3, 3, 3, 3, 3, 3, 3 and 4 of the 25 real heads", async () => {
  const config = await configOf("test/fixtures/nvlm-d-72b");
  const heads = Array.from({ length: 8 }, (_, rank) => {
    const { encode } = rankProgram(config, { rank, size: 8, vision: "tensor" });
    const ops = encode.segments.flatMap((segment) => segment.ops);
    const attention = ops.find(
      (op): op is Op & { op: "vision_attention" } => op.op === "vision_attention",
    );
    return attention?.heads;
  });
  assert.deepEqual(heads, [3, 3, 3, 3, 3, 3, 3, 4]);
});
