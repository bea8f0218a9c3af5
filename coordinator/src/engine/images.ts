/**
 * What of pictures lies on the workers: embeddings of tiles, and images' keys and values for cross-attention. Requests
 * of one tenant share what is equal; what nobody holds any more is kept until its room is needed.
 */
import { BlockPool, blockCount } from "../schedule/blocks.js";
import { SharedStore, type Entry, type Wanted } from "../schedule/shared-store.js";
import type { PreparedRequest, PreparedStream } from "../request/types.js";

/** A tile waiting, being encoded, or held by the workers under its id. */
export interface HeldTile {
  embeddingId: bigint;
  /** While it waits; u8 [size, size, 3]. */
  pixels: Uint8Array | undefined;
  /** Who encodes it. */
  rank: number;
  state: "waiting" | "encoding" | "ready";
  /** Asked for, by the loop's clock. */
  sinceMs: number;
  /** Nobody wants it any more, and it was being encoded then. */
  gone: boolean;
}

export interface HeldStream {
  streamId: bigint;
  blockIds: number[];
  /** `open`: a plan has told the workers of it. */
  state: "waiting" | "open";
}

/** What one request holds. */
export interface RequestImages {
  /** By the request's distinct tiles; undefined: not needed, or not any more. */
  tiles: (Entry<HeldTile> | undefined)[];
  streams: Entry<HeldStream>[];
}

export interface OpenedStream {
  held: HeldStream;
  /** In order: ids of the tag before it, and the tile. */
  tiles: { tagIds: number[]; tile: HeldTile }[];
}

export interface ImageLimits {
  /** Tiles whose embeddings the workers hold. */
  maxEmbeddings: number;
  crossBlockCount: number;
  /** Of the streams that one step opens. */
  maxStreamRows: number;
}

/** Counted when a request takes its images. */
export interface ImageCounts {
  tiles: { asked: number; found: number };
  streams: { asked: number; found: number };
}

function tilesInText(prepared: PreparedRequest): Set<number> {
  return new Set(prepared.imageRows.map(({ tile }) => tile));
}

export class ImageStore {
  private readonly tiles: SharedStore<HeldTile>;
  private readonly streams: SharedStore<HeldStream>;
  private readonly pool: BlockPool;
  private nextEmbedding = 1n;
  private nextStream = 1n;
  /** Embeddings that the workers have or will have, those that the step in flight releases among them. */
  private present = 0;
  private readonly released: bigint[] = [];
  private readonly closed: bigint[] = [];

  constructor(private readonly limits: ImageLimits) {
    this.pool = new BlockPool(limits.crossBlockCount);
    this.tiles = new SharedStore(limits.maxEmbeddings, ({ value }) => this.dropTile(value));
    this.streams = new SharedStore(limits.crossBlockCount, ({ value }) => this.dropStream(value));
  }

  private dropTile(tile: HeldTile): void {
    tile.gone = true;
    // One on its way is released when it has been encoded; before, the workers do not know it.
    if (tile.state === "ready") this.released.push(tile.embeddingId);
  }
  private dropStream(stream: HeldStream): void {
    this.pool.give(stream.blockIds);
    if (stream.state === "open") this.closed.push(stream.streamId);
  }

  load() {
    return {
      embeddings: this.tiles.heldSize,
      idleEmbeddings: this.tiles.idleSize,
      usedCrossBlocks: this.streams.heldSize,
      idleCrossBlocks: this.streams.idleSize,
    };
  }

  private wantedStreams({ tenant, streams }: PreparedRequest): Wanted<HeldStream>[] {
    return streams.map(({ key, rowCount }) => ({
      key: `${tenant}/${key}`,
      size: blockCount(rowCount),
      make: () => ({
        streamId: this.nextStream++,
        blockIds: this.pool.take(blockCount(rowCount)) ?? [],
        state: "waiting" as const,
      }),
    }));
  }

  private isOpen(wanted: Wanted<HeldStream>): boolean {
    return this.streams.get(wanted.key)?.value.state === "open";
  }

  /** Tiles in the text, and those of streams that are not computed yet. */
  private neededTiles(prepared: PreparedRequest, open: (stream: number) => boolean): number[] {
    const needed = tilesInText(prepared);
    prepared.streams.forEach(({ tiles }, i) => {
      if (!open(i)) for (const { tile } of tiles) needed.add(tile);
    });
    return [...needed].sort((a, b) => a - b);
  }

  /** Everything a request needs, or undefined when there is no room for all of it now. */
  hold(
    prepared: PreparedRequest,
    nowMs: number,
  ): { images: RequestImages; counts: ImageCounts } | undefined {
    const streams = this.wantedStreams(prepared);
    const open = streams.filter((stream) => this.isOpen(stream)).length;
    const indices = this.neededTiles(prepared, (i) => {
      const stream = streams[i];
      return stream !== undefined && this.isOpen(stream);
    });
    const tiles = indices.map((index) => this.wantedTile(prepared, index, nowMs));
    if (!this.streams.fits(streams) || !this.tiles.fits(tiles)) return undefined;
    const found = tiles.filter(({ key }) => this.tiles.get(key) !== undefined).length;
    const counts = {
      tiles: { asked: tiles.length, found },
      streams: { asked: streams.length, found: open },
    };
    const held = this.tiles.hold(tiles);
    const byIndex = prepared.tiles.map((_, index) => held[indices.indexOf(index)]);
    return { images: { tiles: byIndex, streams: this.streams.hold(streams) }, counts };
  }

  private wantedTile(prepared: PreparedRequest, index: number, nowMs: number): Wanted<HeldTile> {
    const tile = prepared.tiles[index];
    return {
      key: `${prepared.tenant}/${tile?.sha256 ?? ""}`,
      size: 1,
      make: () => ({
        embeddingId: this.nextEmbedding++,
        pixels: tile?.pixels,
        rank: 0,
        state: "waiting",
        sinceMs: nowMs,
        gone: false,
      }),
    };
  }

  leave(images: RequestImages): void {
    for (const tile of images.tiles) if (tile !== undefined) this.tiles.leave(tile);
    for (const stream of images.streams) this.streams.leave(stream);
    images.tiles = [];
    images.streams = [];
  }

  /** Gives back tiles that a request needed for streams which are computed now. */
  private settle(prepared: PreparedRequest, images: RequestImages): void {
    const open = (i: number) => images.streams[i]?.value.state === "open";
    const needed = new Set(this.neededTiles(prepared, open));
    images.tiles.forEach((tile, index) => {
      if (tile === undefined || needed.has(index)) return;
      images.tiles[index] = undefined;
      this.tiles.leave(tile);
    });
  }

  /** More tiles than these the workers cannot take now. */
  get room(): number {
    return this.limits.maxEmbeddings - this.present;
  }

  giveOut(tile: Entry<HeldTile>): void {
    tile.value.state = "encoding";
    tile.worthKeeping = true;
    this.present++;
  }

  encoded(tile: HeldTile): void {
    tile.state = "ready";
    tile.pixels = undefined;
    if (tile.gone) this.released.push(tile.embeddingId);
  }

  /** Whether sequences of the request can run: their rows and streams are there. */
  ready(prepared: PreparedRequest, images: RequestImages): boolean {
    const inText = tilesInText(prepared);
    return (
      [...inText].every((index) => images.tiles[index]?.value.state === "ready") &&
      images.streams.every(({ value }) => value.state === "open")
    );
  }

  /** Streams of these requests, in order, whose tiles are encoded and that one step can open together; then open. */
  openStreams(requests: { prepared: PreparedRequest; images: RequestImages }[]): OpenedStream[] {
    const opened: OpenedStream[] = [];
    let rows = 0;
    for (const { prepared, images } of requests)
      for (const [i, stream] of prepared.streams.entries()) {
        const entry = images.streams[i];
        if (entry === undefined || entry.value.state === "open") continue;
        const tiles = this.readyTiles(stream, images);
        if (tiles === undefined || rows + stream.rowCount > this.limits.maxStreamRows) continue;
        rows += stream.rowCount;
        entry.value.state = "open";
        entry.worthKeeping = true;
        opened.push({ held: entry.value, tiles });
      }
    // Embeddings that become idle now are released in a later plan at the earliest.
    if (opened.length > 0)
      for (const { prepared, images } of requests) this.settle(prepared, images);
    return opened;
  }

  private readyTiles({ tiles }: PreparedStream, images: RequestImages) {
    const parts = tiles.flatMap(({ tagIds, tile }) => {
      const held = images.tiles[tile]?.value;
      return held?.state === "ready" ? [{ tagIds, tile: held }] : [];
    });
    return parts.length === tiles.length ? parts : undefined;
  }

  /** For the next plan. The workers still hold the embeddings until it is answered. */
  takeReleased(): { embeddings: bigint[]; streams: bigint[] } {
    return { embeddings: this.released.splice(0), streams: this.closed.splice(0) };
  }
  /** The plan with these was answered. */
  gone(embeddings: bigint[]): void {
    this.present -= embeddings.length;
  }
  get anythingReleased(): boolean {
    return this.released.length > 0 || this.closed.length > 0;
  }

  /** @throws AssertionError when `requests`, all that hold something, are not who it is noted for. */
  audit(requests: readonly RequestImages[]): void {
    this.tiles.audit(requests.flatMap(({ tiles }) => tiles.filter((tile) => tile !== undefined)));
    this.streams.audit(requests.flatMap(({ streams }) => streams));
    this.pool.audit([...this.streams.all()].flatMap(({ value }) => value.blockIds));
  }
}
