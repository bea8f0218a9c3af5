import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseConfig } from "../config.js";
import type { Op, Program } from "../program.js";
import { tensorShapes } from "../tensors.js";
import { rankProgram } from "./index.js";
import { assertTiled, pieces, values } from "./pieces.fixture.js";

const SIZES = [1, 2, 4, 8];
const MODELS = ["test/fixtures/nvlm-d-72b", "models/nvlm-d-tiny", "test/goldens/checkpoint"];

async function configOf(model: string) {
  const path = fileURLToPath(new URL(`../../../${model}/config.json`, import.meta.url));
  return parseConfig(JSON.parse(await readFile(path, "utf8")));
}

function programs(config: Awaited<ReturnType<typeof configOf>>, size: number) {
  return Array.from({ length: size }, (_, rank) => rankProgram(config, { rank, size }));
}

for (const model of MODELS) {
  const config = await configOf(model);
  const shapes = tensorShapes(config);
  const isVision = (name: string) => /^(vision_model|mlp1)\./.test(name);

  for (const size of SIZES) {
    const ranks = programs(config, size);

    test(`${model}, ${size} ranks: every decoder tensor is held once, norms by every rank`, () => {
      const all = ranks.map(({ step }) => pieces(step));
      for (const [name, shape] of [...shapes].filter(([name]) => !isVision(name))) {
        const held = all.map((list) => list.filter(({ tensor }) => tensor === name));
        const whole = name.endsWith("norm.weight");
        const parts = whole ? held : [held.flat()];
        for (const list of parts) assertTiled(list, shape, name);
      }
    });

    test(`${model}, ${size} ranks: every rank holds the vision encoder and the projector whole`, () => {
      for (const { encode } of ranks) {
        const list = pieces(encode);
        for (const [name, shape] of [...shapes].filter(([name]) => isVision(name))) {
          const own = list.filter(({ tensor }) => tensor === name);
          // Class token and positions are stored with leading dimensions of 1.
          const flat = /class_embedding|position_embedding/.test(name);
          assertTiled(own, flat ? [1, shape.reduce((a, b) => a * b, 1)] : shape, name);
        }
      }
    });

    test(`${model}, ${size} ranks: the same ops and collectives on every rank`, () => {
      const outline = ({ segments, buffers }: Program) =>
        segments.map(({ ops, collective }) => [
          ops.map(({ op, label }) => [op, label]),
          collective === null ? null : buffers[collective.buffer]?.width,
        ]);
      for (const { step, encode } of ranks) {
        assert.deepEqual(outline(step), outline(ranks[0]?.step ?? step));
        assert.deepEqual(encode, ranks[0]?.encode);
      }
      const collectives = ranks[0]?.step.segments.filter(({ collective }) => collective !== null);
      assert.equal(collectives?.length, 2 * config.decoder.layers + 1);
    });

    test(`${model}, ${size} ranks: vocabulary lanes and their ids are each on one rank`, () => {
      const heads = ranks.flatMap(({ step }) =>
        step.segments.flatMap(({ ops }) =>
          ops.filter((op): op is Op & { op: "head" } => op.op === "head"),
        ),
      );
      const lanes = heads.flatMap((head) => head.lanes);
      assert.deepEqual(
        lanes.map(({ lane }) => lane),
        Array.from({ length: 8 }, (_, i) => i),
      );
      let next = 0;
      for (const { firstId, count } of lanes) {
        assert.equal(firstId, next);
        next += count;
      }
      assert.equal(next, config.decoder.vocabularySize);
    });
  }

  test(`${model}: lanes of a row-parallel weight are those of the whole, whatever the size`, () => {
    const widths = (size: number) =>
      programs(config, size).map(({ step }) =>
        step.weights.flatMap((weight) =>
          weight.kind === "linear" && weight.laneStarts.length > 2
            ? weight.laneStarts.slice(1).map((end, i) => end - (weight.laneStarts[i] ?? 0))
            : [],
        ),
      );
    const [whole = []] = widths(1);
    const perLinear = 8;
    for (const size of [2, 4]) {
      const own = widths(size);
      const joined = whole.map((_, at) => {
        const [linear, lane] = [Math.floor(at / perLinear), at % perLinear];
        const lanesOfRank = perLinear / size;
        const rank = Math.floor(lane / lanesOfRank);
        return own[rank]?.[linear * lanesOfRank + (lane % lanesOfRank)];
      });
      assert.deepEqual(joined, whole);
    }
  });
}

test("dummy heads are never computed: 25 of 32 heads of NVLM-D-72B's vision encoder", async () => {
  const config = await configOf("test/fixtures/nvlm-d-72b");
  const { encode } = rankProgram(config, { rank: 0, size: 1 });
  const qkv = encode.buffers.find(({ name }) => name === "vit.qkv");
  assert.equal(qkv?.width, 3 * 25 * 128);
  const zeros = encode.weights.flatMap((weight) => (weight.kind === "table" ? [] : weight.zeros));
  assert.equal(values(zeros), 45 * (4 * 7 * 128 * 3200 + 2 * 7 * 128));
});
