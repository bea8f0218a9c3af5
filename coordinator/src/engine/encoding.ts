/** Tiles of waiting requests, of all users together, given out in batches beside the steps; one batch at a time. */
import type { Progress } from "@tessera/proto";
import type { RunningGroup } from "../cluster/group.js";
import type { CoordinatorMetrics } from "../metrics.js";
import type { Entry } from "../schedule/shared-store.js";
import { EncodePace } from "./encode-pace.js";
import type { HeldTile, ImageStore } from "./images.js";

export interface EncodingOptions {
  /** Tiles of one Encode a rank. */
  maxTiles: number;
  /** What a batch may take of the running sequences' time. */
  budgetMs: number;
  /** Taken for a tile before one was measured. */
  unknownMs: number;
  metrics: CoordinatorMetrics;
  progress: Progress;
  /** Of an encode, for liveness. */
  boundMs: number;
  nowMs: () => number;
}

export interface EncodedBatch {
  tiles: ReadonlySet<Entry<HeldTile>>;
  startMs: number;
  endMs: number;
}

export class Encoding {
  private readonly pace: EncodePace;
  private running = false;

  constructor(private readonly options: EncodingOptions) {
    this.pace = new EncodePace(options);
  }

  /** The epoch ended: what is under way is of no use any more. */
  reset(): void {
    this.running = false;
  }

  /** Tiles of the next batch; empty while one is under way, or when the workers have no room. */
  choose(
    group: RunningGroup,
    waiting: Iterable<Entry<HeldTile>>,
    at: { room: number; sequencesRun: boolean },
  ): Set<Entry<HeldTile>> {
    const batch = new Set<Entry<HeldTile>>();
    if (this.running) return batch;
    const dealt = group.encodesTogether ? 1 : group.encoders.length;
    // Encoders of their own take no step's time.
    const beside = at.sequencesRun && group.encoders.some((rank) => rank < group.size);
    const most = Math.min(at.room, dealt * this.pace.tilesPerRank(beside));
    for (const tile of waiting) {
      if (batch.size >= most) break;
      if (tile.value.state === "waiting") batch.add(tile);
    }
    return batch;
  }

  /** Resolves when every rank has encoded and sent its own, or the epoch has ended: then undefined. */
  async run(
    group: RunningGroup,
    store: ImageStore,
    batch: ReadonlySet<Entry<HeldTile>>,
  ): Promise<EncodedBatch | undefined> {
    const { metrics, progress, boundMs, nowMs } = this.options;
    this.running = true;
    const startMs = nowMs();
    const byRank = this.deal(group, [...batch]);
    for (const tile of batch) {
      store.giveOut(tile);
      metrics.encodeQueueSeconds.observe((startMs - tile.value.sinceMs) / 1e3);
    }
    const most = Math.max(...[...byRank.values()].map((tiles) => tiles.length));
    const work = () => group.encode(byRank, this.pace.estimateMs(most));
    try {
      this.pace.observe(most, await progress.track(boundMs, work));
    } catch (error) {
      if (error === group.failure) return undefined;
      throw error;
    }
    if (group.failure !== undefined) return undefined;
    for (const { value } of batch) store.encoded(value);
    const endMs = nowMs();
    metrics.encodeSeconds.observe((endMs - startMs) / 1e3);
    metrics.encodeTiles.observe(batch.size);
    this.running = false;
    return { tiles: batch, startMs, endMs };
  }

  /** One after another over the encoders; or all to each, where they encode together. */
  private deal(group: RunningGroup, batch: Entry<HeldTile>[]) {
    const byRank = new Map<number, { embeddingId: bigint; pixels: Uint8Array }[]>();
    const { encoders, encodesTogether } = group;
    batch.forEach(({ value }, i) => {
      const dealt = encoders[i % encoders.length] ?? 0;
      value.rank = encodesTogether ? (encoders[0] ?? 0) : dealt;
      const tile = {
        embeddingId: value.embeddingId,
        pixels: value.pixels ?? new Uint8Array(0),
      };
      for (const rank of encodesTogether ? encoders : [dealt])
        byRank.set(rank, [...(byRank.get(rank) ?? []), tile]);
    });
    return byRank;
  }
}
