import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { rankProgram } from "./architectures/index.js";
import { parseConfig } from "./config.js";
import { exchangeBytes, workspaceBytes } from "./estimate.js";
import { planHash, planPlacement, type PlacementOptions, type RankPlan } from "./placement.js";
import type { Op, Program } from "./program.js";

const path = new URL("../../test/fixtures/nvlm-d-72b/config.json", import.meta.url);
const config = parseConfig(JSON.parse(await readFile(fileURLToPath(path), "utf8")));
const plan = (options: Partial<PlacementOptions> = {}) =>
  planPlacement(config, { size: 8, kvType: "f32", ...options });
const sum = (list: number[]) => list.reduce((total, n) => total + n, 0);

test("NVLM-D-72B: 158.76 GB of bf16 weights with dummy heads, 157.73 without", () => {
  const { stored, computed } = plan().modelBytes;
  assert.equal((stored / 1e9).toFixed(2), "158.76");
  assert.equal((computed / 1e9).toFixed(2), "157.73");
});

test("NVLM-D-72B: 327,680 bytes of cache per token in bf16, twice that in f32, 168,960 in int8", () => {
  assert.equal(plan({ kvType: "bf16" }).cacheBytesPerToken, 327_680);
  assert.equal(plan().cacheBytesPerToken, 655_360);
  // 80 layers, keys and values, 8 heads of 128 values and a scale in f32.
  assert.equal(plan({ kvType: "int8" }).cacheBytesPerToken, 80 * 2 * 8 * (128 + 4));
});

test("NVLM-D-72B over 8: columns, key-value heads, and every rank encodes", () => {
  const { ranks } = plan();
  const columns = [3648, 3712, 3712, 3712];
  assert.deepEqual(
    ranks.map((rank) => rank.feedForwardColumns),
    [...columns, ...columns],
  );
  assert.ok(ranks.every(({ kvHeads, encodes }) => kvHeads === 1 && encodes));
});

test("NVLM-D-72B: the decoder's weights are held once over all sizes, the vision encoder's on each rank", () => {
  const weights = (size: number) => sum(plan({ size }).ranks.map((rank) => rank.weightBytes));
  const vision = (weights(8) - weights(1)) / 7;
  for (const size of [2, 4]) {
    const replicas = weights(size) - weights(1);
    // Norms are on every rank too, and vocabulary and feed-forward are padded to whole panels.
    assert.ok(Math.abs(replicas / (size - 1) / vision - 1) < 1e-3);
  }
  assert.ok(Math.abs(weights(1) / plan().modelBytes.computed - 1) < 1e-3);
});

test("exchange of a decoded token: each partial to every other rank, 161 times", () => {
  const bytes = 161 * 8192 * 4;
  assert.deepEqual(
    [1, 2, 4, 8].map((size) => plan({ size }).exchangeBytesPerToken),
    [0, 2, 12, 56].map((pairs) => pairs * bytes),
  );
});

test("exchange of prompt tokens: partials to the owners of ranges, sums back", () => {
  const bytes = 161 * 8192 * 4;
  assert.equal(plan().exchangeBytesPerPromptToken, 2 * 7 * bytes);
  const { step } = rankProgram(config, { rank: 0, size: 8 });
  // 2 rows are 64 KiB and still go to all; 3 are more.
  const sent = (rows: number) => exchangeBytes(step, { size: 8, rows, wireType: "f32" });
  assert.equal(sent(2), 2 * 56 * bytes);
  assert.equal(sent(3), 3 * 14 * bytes);
  const narrow = (rows: number) => exchangeBytes(step, { size: 8, rows, wireType: "bf16" });
  assert.equal(narrow(2), 56 * bytes);
  // Sums come back in f32.
  assert.equal(narrow(3), (3 * 14 * bytes * 3) / 4);
});

function taken(rank: RankPlan): number {
  const { weightBytes, workspaceBytes, embeddingBytes, crossCacheBytes } = rank;
  const held = weightBytes + workspaceBytes + embeddingBytes + crossCacheBytes;
  return held + rank.processBytes + rank.trafficBytes;
}

for (const [kvType, tokenBytes] of [
  ["bf16", 327_680],
  ["int8", 168_960],
] as const)
  test(`memory, ${kvType}: what weights, workspace, process and messages leave is cache, in whole blocks`, () => {
    const memoryBytes = 40 * 2 ** 30;
    const { blockCount, ranks } = plan({ kvType, memoryBytes });
    const blockBytes = (32 * tokenBytes) / 8;
    for (const rank of ranks) {
      assert.equal(rank.cacheBytes, blockCount * blockBytes);
      assert.ok(taken(rank) + rank.cacheBytes <= memoryBytes, `${taken(rank)}`);
    }
    const most = Math.max(...ranks.map(taken));
    assert.equal(blockCount, Math.floor((memoryBytes - most) / blockBytes));
  });

const refused: [string, Partial<PlacementOptions>, RegExp][] = [
  ["16 ranks", { size: 16 }, /size 16: .*possible: 1, 2, 4, 8; next: 8$/],
  ["no rank", { size: 0 }, /size 0: /],
  ["half a rank", { size: 0.5 }, /size 0.5: /],
  ["a context beyond the model's", { maxModelLen: 32769 }, /max-model-len 32769: must be 1…32768/],
  ["a context of 0", { maxModelLen: 0 }, /max-model-len 0: must be 1…32768/],
  [
    "too little memory",
    { memoryBytes: 10 * 2 ** 30 },
    /memory of 10737418240 bytes a rank: .* take \d{11}; .*32768 tokens needs 2684354560;/,
  ],
  ["too little cache", { cacheBytes: 1e9 }, /cache of 1000000000 bytes a rank; .*needs 2684354560/],
  ["memory that is no number", { memoryBytes: NaN }, /memory: NaN bytes, must be above 0/],
  ["memory below 0", { memoryBytes: -5 }, /memory: -5 bytes, must be above 0/],
  ["a cache of 0", { cacheBytes: 0 }, /cache-memory: 0 bytes, must be above 0/],
];
for (const [name, options, message] of refused)
  test(`planPlacement: ${name} is refused with the numbers`, () => {
    assert.throws(() => plan(options), { code: "INVALID_ARGUMENT", message });
  });

/** The encoder and its projector in bf16, dummy heads left out. */
const ENCODER_BYTES = 2 * (5_536_496_000 + 620_717_056);

test("vision tensor, NVLM-D-72B: each rank holds an eighth of the encoder instead of all of it", () => {
  const whole = plan();
  const cut = plan({ vision: "tensor" });
  assert.deepEqual([whole.vision, cut.vision, cut.encoderCount], ["replicate", "tensor", 0]);
  const saved = whole.ranks.map((rank, i) => rank.weightBytes - (cut.ranks[i]?.weightBytes ?? 0));
  for (const bytes of saved) {
    const share = bytes / ENCODER_BYTES;
    // The last rank has four heads of 25, the others three; what is not cut is small.
    assert.ok(share > 0.86 && share < 0.89, `${share}`);
  }
  assert.ok(cut.ranks.every(({ encodes }) => encodes));
  const embedding = 4 * 256 * 8192;
  assert.equal(whole.exchangeBytesPerTile, 7 * embedding);
  assert.ok(cut.exchangeBytesPerTile > 100 * whole.exchangeBytesPerTile);
});

test("vision-workers: the last ranks hold the encoder and nothing else, the others everything else", () => {
  const { vision, encoderCount, ranks, exchangeBytesPerTile } = plan({ visionWorkers: 2 });
  assert.deepEqual([vision, encoderCount, ranks.length], ["workers", 2, 10]);
  const [decoders, encoders] = [ranks.slice(0, 8), ranks.slice(8)];
  for (const { weightBytes, cacheBytes, embeddingBytes, kvHeads, encodes } of encoders) {
    assert.ok(Math.abs(weightBytes / ENCODER_BYTES - 1) < 0.01, `${weightBytes}`);
    assert.deepEqual([cacheBytes, embeddingBytes, kvHeads, encodes], [0, 0, 0, true]);
  }
  assert.ok(decoders.every(({ encodes, kvHeads }) => !encodes && kvHeads === 1));
  const all = sum(decoders.map(({ weightBytes }) => weightBytes));
  assert.ok(Math.abs(all / (2 * 72_706_203_648) - 1) < 0.01);
  assert.equal(exchangeBytesPerTile, 8 * 4 * 256 * 8192);
});

test("vision auto: whole where it fits the workers' memory, else cut", () => {
  const memory = (gib: number) => plan({ kvType: "bf16", memoryBytes: gib * 2 ** 30 }).vision;
  assert.deepEqual([memory(80), memory(40), memory(30)], ["replicate", "replicate", "tensor"]);
  assert.equal(plan({ size: 1 }).vision, "replicate");
});

const few = { ...config, vision: { ...config.vision, heads: 4, storedHeads: 4 } };
const visionRefused: [string, Partial<PlacementOptions>, RegExp][] = [
  ["more ranks than heads", { vision: "tensor" }, /tensor over 8 ranks: the encoder has 4 heads/],
  [
    "vision workers beside it",
    { vision: "replicate", visionWorkers: 2 },
    /vision replicate beside vision-workers 2/,
  ],
  ["no vision worker", { visionWorkers: 0 }, /vision-workers 0: must be 1…64/],
  ["too many", { visionWorkers: 65 }, /vision-workers 65: must be 1…64/],
  [
    "an encoder without the memory for it",
    { visionWorkers: 1, memoryBytes: 1e9, cacheBytes: 1e11 },
    /memory of 1000000000 bytes a rank: rank 8, which only encodes tiles, takes \d{10,}/,
  ],
  [
    "too little for one image",
    { embeddingBytes: 1e6 },
    /embedding-memory of 1000000 bytes holds 0 tiles, one image can have 7: needs 58720256/,
  ],
  [
    "a cross cache without cross-attention",
    { crossCacheBytes: 1e9 },
    /cross-cache-memory: 1000000000 bytes, but NVLM_D has no cross-attention/,
  ],
];
for (const [name, options, message] of visionRefused)
  test(`planPlacement, vision and images: ${name} is refused with the numbers`, () => {
    const placement = { size: 8, kvType: "f32" as const, ...options };
    assert.throws(() => planPlacement(few, placement), { code: "INVALID_ARGUMENT", message });
  });

test("planHash: the same facts in any order give the same hash, another value another", () => {
  const hash = planHash({ build: "1", size: 2 });
  assert.match(hash, /^[0-9a-f]{64}$/);
  assert.equal(planHash({ size: 2, build: "1" }), hash);
  assert.notEqual(planHash({ size: 4, build: "1" }), hash);
  assert.notEqual(planHash({ size: "2", build: "1" }), hash);
});

test("workspaceBytes: buffers that live at the same time lie apart, others share", () => {
  const buffers = [0, 1, 2, 3].map((i) => ({
    name: `b${i}`,
    per: "token" as const,
    rows: 1,
    width: 16,
  }));
  const step = (x: number, out: number): Op => ({ op: "silu_mul", x, out });
  const chain = (ops: Op[]): Program => ({
    buffers,
    weights: [],
    segments: [{ ops, collective: null }],
  });
  const items = { token: 10, wanted: 0, tile: 0, stream: 0 };
  const one = 10 * 16 * 4;
  assert.equal(workspaceBytes(chain([step(0, 1), step(1, 2), step(2, 3)]), items), 2 * one);
  assert.equal(workspaceBytes(chain([step(0, 1), step(1, 2), step(0, 3)]), items), 3 * one);
});
