/**
 * The public reference's small model layer by layer, through 1, 2, 4 and 8 engines: every row of every quantity within
 * the goldens' tolerance for f32 (20 × what the reference's own f32 and f64 runs differ by), greedy ids exactly.
 */
import { GREEDY } from "@tessera/native/engine";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { Engine } from "@tessera/native/engine";
import { assertNear, readActivations } from "../harness/activations.js";
import { closeGroup, openGroup } from "../harness/engines.js";
import { root } from "../harness/paths.js";

interface Difference {
  name: string;
  tolerance_f32: number;
}
interface Case {
  name: string;
  tiles: number;
  ids: number[];
  image_positions: number[];
  greedy_ids: number[];
}
interface Goldens {
  differences: Difference[];
  cases: Case[];
}

const readJson = async (path: string) =>
  JSON.parse(await readFile(root(`test/goldens/${path}`), "utf8")) as Goldens;
const vision = await readJson("vit-block/vit-block.json");
const decoder = await readJson("decoder/decoder.json");
const visionValues = await readActivations(root("test/goldens/vit-block/activations.safetensors"));
const decoderValues = await readActivations(root("test/goldens/decoder/activations.safetensors"));

const VOCABULARY = 512;
const ROWS_PER_TILE = 4;
const PIXELS = 3 * 56 * 56;

function join(parts: Float32Array[]): Float32Array {
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

/** One request through a group: its encode, and steps with everything captured. */
class Pass {
  private step = 1n;
  constructor(private readonly engines: Engine[]) {}

  /** Every quantity of the vision goldens, tiles in order; tile i is encoded by rank i mod size. */
  async encode(one: { name: string; tiles: number }): Promise<Map<string, Float32Array>> {
    const pixels = visionValues.get(`${one.name}.pixel_values`)?.values ?? new Float32Array(0);
    const tiles = Array.from({ length: one.tiles }, (_, i) => ({
      embeddingId: BigInt(i + 1),
      pixels: pixels.slice(i * PIXELS, (i + 1) * PIXELS),
    }));
    const capture = vision.differences.map(({ name }) => name);
    const size = this.engines.length;
    const outcomes = await Promise.all(
      this.engines.map((engine, rank) =>
        engine.encode({
          epoch: 1n,
          encodeId: 1n,
          tiles: tiles.filter((_, i) => i % size === rank),
          capture,
        }),
      ),
    );
    const ofTile = (label: string, i: number) => {
      const all = outcomes[i % size]?.captured[label] ?? new Float32Array(0);
      const own = tiles.filter((_, other) => other % size === i % size).length;
      const length = all.length / own;
      return all.subarray(Math.floor(i / size) * length, (Math.floor(i / size) + 1) * length);
    };
    return new Map(
      capture.map((label) => [label, join(tiles.map((_, i) => ofTile(label, i)))] as const),
    );
  }

  /** Tokens from `start` on, every row wanted. → by label; logits whole, [rows, vocabulary]. */
  async run(one: Case, tokens: number[], start: number): Promise<Map<string, Float32Array>> {
    const count = tokens.length - start;
    const capture = decoder.differences.map(({ name }) => name);
    const imageRows = one.image_positions.flatMap((position, i) => {
      const embeddingId = BigInt(Math.floor(i / ROWS_PER_TILE) + 1);
      const encoderRank = Math.floor(i / ROWS_PER_TILE) % this.engines.length;
      const row = { row: position - start, embeddingId, firstRow: i % ROWS_PER_TILE, count: 1 };
      const inside = position >= start && position < tokens.length;
      return inside ? [{ ...row, encoderRank }] : [];
    });
    const open = { sequenceId: 1n, promptLength: one.ids.length, tokenIds: [], sampling: GREEDY };
    const wanted = { candidates: 0, topLogprobs: 0, logprob: false, scoredTokenIds: [] };
    const stepId = this.step++;
    const plan = {
      epoch: 1n,
      stepId,
      releasedStep: stepId - 1n,
      deadlineMs: 20_000,
      opened: start === 0 ? [open] : [],
      closedSequenceIds: [],
      releasedEmbeddingIds: [],
      slices: [
        {
          sequenceId: 1n,
          startPosition: start,
          tokenIds: tokens.slice(start),
          firstBlock: 0,
          blockIds: [0, 1],
          imageRows,
          wanted: Array.from({ length: count }, (_, row) => ({
            row,
            ...wanted,
          })),
        },
      ],
      capture,
    };
    const outcomes = await Promise.all(this.engines.map((engine) => engine.step(plan)));
    const first = outcomes[0]?.captured ?? {};
    const logits = outcomes.map(({ captured }) => captured["logits"] ?? new Float32Array(0));
    const rows = Array.from({ length: count }, (_, row) =>
      logits.map((own) =>
        own.subarray((row * own.length) / count, ((row + 1) * own.length) / count),
      ),
    );
    return new Map([...Object.entries(first), ["logits", join(rows.flat())]]);
  }

  /** The prompt in chunks, then the golden number of greedy tokens. */
  async decode(one: Case, chunk: number) {
    const parts: Map<string, Float32Array>[] = [];
    for (let start = 0; start < one.ids.length; start += chunk)
      parts.push(await this.run(one, one.ids.slice(0, start + chunk), start));
    const values = new Map(
      decoder.differences.map(({ name }) => [
        name,
        join(parts.map((part) => part.get(name) ?? new Float32Array(0))),
      ]),
    );
    const tokens = [...one.ids];
    let last: Float32Array = values.get("logits")?.slice(-VOCABULARY) ?? new Float32Array(0);
    while (tokens.length < one.ids.length + one.greedy_ids.length) {
      tokens.push(last.indexOf(Math.max(...last)));
      last = (await this.run(one, tokens, tokens.length - 1)).get("logits") ?? last;
    }
    return { values, greedy: tokens.slice(one.ids.length) };
  }
}

async function everything(size: number, one: Case, chunk = 512) {
  const options = { size, kvType: "f32" as const, selectableIds: VOCABULARY, maxModelLen: 64 };
  const engines = await openGroup(root("test/goldens/checkpoint"), options);
  try {
    const pass = new Pass(engines);
    const encoded = one.tiles === 0 ? new Map<string, Float32Array>() : await pass.encode(one);
    return { encoded, ...(await pass.decode(one, chunk)) };
  } finally {
    await closeGroup(engines);
  }
}

test("the goldens have every quantity of every case", () => {
  const names = (goldens: Goldens) =>
    goldens.cases.flatMap((one) => goldens.differences.map(({ name }) => `${one.name}.${name}`));
  for (const name of names(vision)) assert.ok(visionValues.has(name), name);
  for (const name of names(decoder)) assert.ok(decoderValues.has(name), name);
  assert.deepEqual([names(vision).length, names(decoder).length], [12, 15]);
});

for (const one of decoder.cases) {
  const whole = await everything(1, one);

  for (const { name, tolerance_f32: tolerance } of one.tiles === 0 ? [] : vision.differences)
    test(`${one.name}: ${name} is the reference's within ${tolerance}`, () => {
      const what = `${one.name}.${name}`;
      assertNear(whole.encoded.get(name), visionValues.get(what)?.values, { tolerance, what });
    });

  for (const { name, tolerance_f32: tolerance } of decoder.differences)
    test(`${one.name}: ${name} is the reference's within ${tolerance}`, () => {
      const what = `${one.name}.${name}`;
      assertNear(whole.values.get(name), decoderValues.get(what)?.values, { tolerance, what });
    });

  test(`${one.name}: the greedy ids are the reference's`, () => {
    assert.equal(one.greedy_ids.length, 16);
    assert.deepEqual(whole.greedy, one.greedy_ids);
  });

  for (const size of [2, 4, 8])
    test(`${one.name}: ${size} engines give every quantity to the bit`, async () => {
      assert.deepEqual(await everything(size, one), whole);
    });

  test(`${one.name}: a prompt in chunks of 5 gives every quantity to the bit`, async () => {
    assert.deepEqual(await everything(2, one, 5), whole);
  });
}
