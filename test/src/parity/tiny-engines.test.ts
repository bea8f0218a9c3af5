/** The golden requests of nvlm-d-tiny through 1, 2, 4 and 8 engines in one process, connected frame by frame. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { Engine, LaneResult } from "@tessera/native/engine";
import { chosen, goldenTiles, closeGroup, GREEDY, openGroup } from "../harness/engines.js";
import { root } from "../harness/paths.js";

interface Golden {
  name: string;
  images: string[];
  prompt_ids: number[];
  image_positions: number[];
  greedy_ids: number[];
  logprobs: number[];
}

const ROWS_PER_TILE = 16;
class Runner {
  private step = 1n;
  private sequence = 1n;
  private embedding = 1n;
  constructor(private readonly engines: Engine[]) {}

  async greedy(golden: Golden, chunk: number) {
    const tiles = (await goldenTiles(golden.images)).flat();
    const first = this.embedding;
    this.embedding += BigInt(tiles.length);
    await this.encode(tiles, first);
    const sequenceId = this.sequence++;
    const tokens = [...golden.prompt_ids];
    const logprobs: number[] = [];
    let computed = 0;
    while (tokens.length - golden.prompt_ids.length < golden.greedy_ids.length) {
      const count = Math.min(chunk, tokens.length - computed);
      const lanes = await this.run({ sequenceId, golden, tokens, start: computed, count, first });
      computed += count;
      if (computed < tokens.length) continue;
      const next = chosen(lanes);
      tokens.push(next.tokenId);
      logprobs.push(next.logprob);
    }
    return { ids: tokens.slice(golden.prompt_ids.length), logprobs };
  }

  /** In batches of the placement's 8 tiles. */
  private async encode(tiles: Uint8Array[], first: bigint): Promise<void> {
    const size = this.engines.length;
    for (let start = 0; start < tiles.length; start += 8 * size) {
      const batch = tiles.slice(start, start + 8 * size).map((pixels, i) => ({
        embeddingId: first + BigInt(start + i),
        rank: (start + i) % size,
        pixels,
      }));
      await Promise.all(
        this.engines.map((engine, rank) =>
          engine.encode({
            epoch: 1n,
            encodeId: first + BigInt(start),
            tiles: batch.filter((tile) => tile.rank === rank),
          }),
        ),
      );
    }
  }

  private async run(at: {
    sequenceId: bigint;
    golden: Golden;
    tokens: number[];
    start: number;
    count: number;
    first: bigint;
  }): Promise<LaneResult[]> {
    const { sequenceId, golden, tokens, start, count, first } = at;
    const end = start + count;
    const imageRows = golden.image_positions.flatMap((position, i) =>
      position < start || position >= end
        ? []
        : [
            {
              row: position - start,
              embeddingId: first + BigInt(Math.floor(i / ROWS_PER_TILE)),
              firstRow: i % ROWS_PER_TILE,
              count: 1,
              encoderRank: Math.floor(i / ROWS_PER_TILE) % this.engines.length,
            },
          ],
    );
    const row = { row: count - 1, candidates: 0, topLogprobs: 0, logprob: true };
    const stepId = this.step++;
    const plan = {
      epoch: 1n,
      stepId,
      releasedStep: stepId - 1n,
      deadlineMs: 20_000,
      opened:
        start === 0
          ? [{ sequenceId, promptLength: golden.prompt_ids.length, tokenIds: [], sampling: GREEDY }]
          : [],
      closedSequenceIds: [],
      releasedEmbeddingIds: [],
      slices: [
        {
          sequenceId,
          startPosition: start,
          tokenIds: tokens.slice(start, end),
          firstBlock: 0,
          blockIds: Array.from({ length: Math.ceil(end / 32) }, (_, i) => i),
          imageRows,
          wanted: [{ ...row, scoredTokenIds: [], masked: false, mask: [] }],
        },
      ],
    };
    const outcomes = await Promise.all(this.engines.map((engine) => engine.step(plan)));
    return outcomes
      .flatMap((outcome) => outcome.rows[0]?.lanes ?? [])
      .sort((a, b) => a.lane - b.lane);
  }
}

const golden = JSON.parse(await readFile(root("test/goldens/nvlm-d-tiny.json"), "utf8")) as {
  requests: Golden[];
};

async function answers(size: number, kvType: "f32" | "bf16", chunk: number, requests: Golden[]) {
  const engines = await openGroup(root("models/nvlm-d-tiny"), {
    size,
    kvType,
    selectableIds: 1024,
  });
  const runner = new Runner(engines);
  const out = [];
  for (const request of requests) out.push(await runner.greedy(request, chunk));
  await closeGroup(engines);
  return out;
}

const alone = await answers(1, "f32", 512, golden.requests);

test("one engine: greedy ids are the oracle's, log-probabilities within 2e-3", () => {
  golden.requests.forEach((request, i) => {
    assert.deepEqual(alone[i]?.ids, request.greedy_ids, request.name);
    request.logprobs.forEach((logprob, k) => {
      assert.ok(Math.abs(logprob - (alone[i]?.logprobs[k] ?? NaN)) < 2e-3, request.name);
    });
  });
});

for (const size of [2, 4, 8])
  test(`${size} engines: the same bits as one`, async () => {
    assert.deepEqual(await answers(size, "f32", 512, golden.requests), alone);
  });

test("chunked prefill of 7 tokens: the same bits as whole", async () => {
  const few = golden.requests.slice(0, 4);
  assert.deepEqual(await answers(2, "f32", 7, few), alone.slice(0, 4));
});

test("a bf16 cache: 1 and 4 engines, whole and chunked, the same bits among themselves", async () => {
  const few = golden.requests.slice(0, 4);
  const whole = await answers(1, "bf16", 512, few);
  assert.deepEqual(await answers(4, "bf16", 512, few), whole);
  assert.deepEqual(await answers(1, "bf16", 33, few), whole);
});
