/**
 * Golden requests of the small models through engines in one process. Where image rows lie, what is in a stream and who
 * sees what is the golden's.
 */
import { GREEDY } from "@tessera/native/engine";
import assert from "node:assert/strict";
import type { KvType, VisionPlacement, WeightType } from "@tessera/model";
import type { Engine, LaneResult, StreamOpenSpec } from "@tessera/native/engine";
import { chosen, closeGroup, goldenTiles, openGroup } from "./engines.js";
import type { Golden } from "./goldens.js";

export interface Answer {
  ids: number[];
  logprobs: number[];
}

const ROWS = 16;
const BLOCK = 32;

/** Each request alone: blocks from 0, ids that rise over all requests. */
export class GoldenRunner {
  private step = 1n;
  private id = 1n;
  /** Of the ranks that hold the decoder. */
  private readonly decoders: Engine[];
  constructor(
    private readonly engines: Engine[],
    private readonly way: Pick<Way, "size" | "vision"> = { size: engines.length },
  ) {
    this.decoders = engines.slice(0, way.size);
  }

  async greedy(golden: Golden, chunk: number): Promise<Answer> {
    const perImage = await goldenTiles(golden.images);
    const first = await this.encode(perImage.flat());
    const offsets = perImage.map((_, i) => perImage.slice(0, i).flat().length);
    const embedding = (image: number, tile: number) => first + BigInt((offsets[image] ?? 0) + tile);
    const streams = this.streamsOf(golden, embedding);
    const inText = perImage.flatMap((tiles, image) => {
      const all = tiles.map((_, tile) => embedding(image, tile));
      return golden.stream === undefined ? all : all.slice(-1);
    });
    const at = { golden, streams, inText };
    const sequenceId = this.id++;
    const tokens = [...golden.prompt_ids];
    const logprobs: number[] = [];
    for (let computed = 0; logprobs.length < golden.greedy_ids.length;) {
      const count = Math.min(chunk, tokens.length - computed);
      const lanes = await this.run({ ...at, sequenceId, tokens, start: computed, count });
      computed += count;
      if (computed < tokens.length) continue;
      const { tokenId, logprob } = chosen(lanes);
      tokens.push(tokenId);
      logprobs.push(logprob);
    }
    const releasedEmbeddingIds = perImage.flat().map((_, i) => first + BigInt(i));
    await this.send({
      closedSequenceIds: [sequenceId],
      closedStreamIds: streams.map(({ streamId }) => streamId),
      releasedEmbeddingIds,
    });
    return { ids: tokens.slice(golden.prompt_ids.length), logprobs };
  }

  /** In batches of the placement's 8 tiles a rank. → id of the first tile. */
  private async encode(tiles: Uint8Array[]): Promise<bigint> {
    const together = this.way.vision === "tensor";
    const size = together ? 1 : this.encoders.length;
    const first = this.id;
    this.id += BigInt(tiles.length) + 1n;
    for (let start = 0; start < tiles.length; start += 8 * size) {
      const batch = tiles.slice(start, start + 8 * size).map((pixels, i) => ({
        embeddingId: first + BigInt(start + i),
        rank: this.rankOf(first + BigInt(start + i)),
        pixels,
      }));
      await Promise.all(
        this.engines.map(async (engine, rank) => {
          if (!this.encoders.includes(rank)) return;
          await engine.encode({
            epoch: 1n,
            encodeId: first + BigInt(start),
            tiles: batch.filter((tile) => together || tile.rank === rank),
          });
        }),
      );
    }
    return first;
  }
  private get encoders(): number[] {
    const ranks = this.engines.map((_, rank) => rank);
    return this.way.vision === "workers" ? ranks.slice(this.way.size) : ranks;
  }
  private rankOf(embeddingId: bigint): number {
    if (this.way.vision === "tensor") return 0;
    const { encoders } = this;
    return encoders[Number(embeddingId % BigInt(encoders.length))] ?? 0;
  }

  /** One stream an image: of its pieces, tags first. */
  private streamsOf(
    golden: Golden,
    embedding: (image: number, tile: number) => bigint,
  ): StreamOpenSpec[] {
    let block = 0;
    return golden.images.flatMap((_, image) => {
      const pieces = (golden.stream ?? []).filter(([of]) => of === image);
      if (pieces.length === 0) return [];
      const tokenIds: number[] = [];
      const imageRows = pieces.map(([, tile, tag]) => {
        tokenIds.push(...tag);
        const embeddingId = embedding(image, tile);
        const place = { row: tokenIds.length, embeddingId, firstRow: 0, count: ROWS };
        tokenIds.push(...Array<number>(ROWS).fill(-1));
        return { ...place, encoderRank: this.rankOf(embeddingId) };
      });
      const blocks = Math.ceil(tokenIds.length / BLOCK);
      const blockIds = Array.from({ length: blocks }, () => block++);
      return [{ streamId: this.id++, tokenIds, imageRows, blockIds }];
    });
  }

  private async run(at: {
    golden: Golden;
    streams: StreamOpenSpec[];
    /** Embeddings of the tiles that lie in the text. */
    inText: bigint[];
    sequenceId: bigint;
    tokens: number[];
    start: number;
    count: number;
  }): Promise<LaneResult[]> {
    const { golden, streams, sequenceId, tokens, start, count } = at;
    const end = start + count;
    const imageRows = (golden.image_positions ?? []).flatMap((position, i) => {
      if (position < start || position >= end) return [];
      const embeddingId = at.inText[Math.floor(i / ROWS)] ?? 0n;
      const place = { row: position - start, embeddingId, firstRow: i % ROWS, count: 1 };
      return [{ ...place, encoderRank: this.rankOf(embeddingId) }];
    });
    const wanted = { row: count - 1, candidates: 0, topLogprobs: 0, logprob: true };
    const blockIds = Array.from({ length: Math.ceil(end / BLOCK) }, (_, i) => i);
    const promptLength = golden.prompt_ids.length;
    const rows = await this.send({
      opened: start === 0 ? [{ sequenceId, promptLength, tokenIds: [], sampling: GREEDY }] : [],
      openedStreams: start === 0 ? streams : [],
      slices: [
        {
          sequenceId,
          startPosition: start,
          tokenIds: tokens.slice(start, end),
          firstBlock: 0,
          blockIds,
          imageRows,
          wanted: [{ ...wanted, scoredTokenIds: [] }],
          seen: seenRows(golden, streams, start, end),
        },
      ],
    });
    return rows;
  }

  private async send(part: Partial<Parameters<Engine["step"]>[0]>): Promise<LaneResult[]> {
    const stepId = this.step++;
    const plan = {
      epoch: 1n,
      stepId,
      releasedStep: stepId - 1n,
      deadlineMs: 20_000,
      opened: [],
      closedSequenceIds: [],
      releasedEmbeddingIds: [],
      slices: [],
      ...part,
    };
    const outcomes = await Promise.all(this.decoders.map((engine) => engine.step(plan)));
    return outcomes
      .flatMap(({ rows }) => rows.flatMap((row) => row.lanes))
      .sort((a, b) => a.lane - b.lane);
  }
}

/** The golden's ranges over all streams, cut at the borders of streams and of the slice; answers see as the last token. */
function seenRows(golden: Golden, streams: StreamOpenSpec[], start: number, end: number) {
  const starts = streams.map((_, i) =>
    streams.slice(0, i).reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
  );
  const sees = golden.sees ?? [];
  const last = sees.at(-1);
  return sees.flatMap((entry) => {
    const [from, to, low, high] = entry;
    const first = Math.max(from, start);
    const stop = Math.min(entry === last ? Infinity : to, end);
    const ranges = streams.flatMap(({ streamId, tokenIds }, i) => {
      const offset = starts[i] ?? 0;
      const range = {
        first: Math.max(0, low - offset),
        end: Math.min(tokenIds.length, high - offset),
      };
      return range.first < range.end ? [{ streamId, ...range }] : [];
    });
    return first < stop && ranges.length > 0
      ? [{ row: first - start, count: stop - first, ranges }]
      : [];
  });
}

export interface Way {
  size: number;
  kvType: KvType;
  /** Of the decoder's linears; absent: bf16. */
  weightType?: WeightType;
  /** Prompt tokens a step. */
  chunk: number;
  /** Where the vision encoder lies; absent: on every rank. */
  vision?: VisionPlacement;
  /** Ranks that only encode tiles; with `workers`. */
  encoders?: number;
}

/** Each request's answer, as many tokens as the golden's. */
export async function answersOf(goldens: Golden[], dir: string, way: Way): Promise<Answer[]> {
  const { chunk, ...group } = way;
  const engines = await openGroup(dir, { ...group, selectableIds: 1024 });
  try {
    const runner = new GoldenRunner(engines, way);
    const answers: Answer[] = [];
    for (const golden of goldens) answers.push(await runner.greedy(golden, chunk));
    return answers;
  } finally {
    await closeGroup(engines);
  }
}

/** Ids are the oracle's, log-probabilities within 2e-3. */
export function assertLikeOracle(answers: Answer[], goldens: Golden[]): void {
  goldens.forEach((golden, i) => {
    assert.deepEqual(answers[i]?.ids, golden.greedy_ids, golden.name);
    golden.logprobs.forEach((logprob, k) => {
      const got = answers[i]?.logprobs[k] ?? NaN;
      assert.ok(Math.abs(got - logprob) < 2e-3, `${golden.name} ${k}: ${got} ${logprob}`);
    });
  });
}
