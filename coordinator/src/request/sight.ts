/** Images' streams for cross-attention, and which of their rows each token sees (spec 14). Pure. */
import { createHash } from "node:crypto";
import type { ImageLayout } from "@tessera/model";
import { tileTags, type RenderedPrompt } from "./prompt.js";
import type { Tokenizer } from "./tokenizer.js";
import type { PreparedStream, Sight } from "./types.js";

type StreamLayout = NonNullable<ImageLayout["stream"]>;

export interface StreamOptions {
  stream: StreamLayout;
  rowsPerTile: number;
  /** Of each image: its tiles' indices among the request's distinct tiles, the thumbnail last. */
  images: number[][];
  /** Of the distinct tiles. */
  hashes: string[];
}

export interface StreamsOfRequest {
  streams: PreparedStream[];
  /** Of each image: the index of its stream, or undefined when nothing is in it. */
  byImage: (number | undefined)[];
}

/** Images of equal tiles have one stream. */
export function streamsOf(tokenizer: Tokenizer, options: StreamOptions): StreamsOfRequest {
  const { stream: layout, rowsPerTile, images, hashes } = options;
  const streams: PreparedStream[] = [];
  const byImage = images.map((tiles) => {
    const tags = tileTags(tiles.length);
    const taken = layout.tiles === "all" ? tiles : tiles.slice(0, -1);
    if (taken.length === 0) return undefined;
    const parts = taken.map((tile, i) => ({
      tagIds: layout.tagged ? tokenizer.encode(tags[i] ?? "", { special: false }) : [],
      tile,
    }));
    const key = createHash("sha256");
    for (const tile of taken) key.update(hashes[tile] ?? "");
    const name = key.digest("hex");
    const known = streams.findIndex((other) => other.key === name);
    if (known >= 0) return known;
    const rowCount = parts.reduce((sum, { tagIds }) => sum + tagIds.length + rowsPerTile, 0);
    return streams.push({ key: name, tiles: parts, rowCount }) - 1;
  });
  return { streams, byImage };
}

/** From an image's first token on its tiles are seen beside those of the images before; at tags, where so laid out, one. */
export function sightsOf(
  prompt: Pick<RenderedPrompt, "starts" | "tags">,
  layout: StreamLayout,
  of: StreamsOfRequest & { rowsPerTile: number },
): Sight[] {
  const whole = (image: number) =>
    of.byImage.slice(0, image + 1).flatMap((stream) => {
      const rows = stream === undefined ? undefined : of.streams[stream]?.rowCount;
      return stream === undefined || rows === undefined ? [] : [{ stream, first: 0, end: rows }];
    });
  const own = (image: number, tile: number) => {
    const first = tile * of.rowsPerTile;
    return [{ stream: of.byImage[image] ?? 0, first, end: first + of.rowsPerTile }];
  };
  return prompt.starts.flatMap((position, image) => {
    if (!layout.ownTileAtTags) return [{ position, ranges: whole(image) }];
    const tags = prompt.tags.filter((tag) => tag.image === image);
    const last = tags.at(-1)?.position ?? position;
    return [
      ...tags.map((tag, i) => ({
        position: i === 0 ? position : (tags[i - 1]?.position ?? position),
        ranges: own(image, tag.tile),
      })),
      { position: last, ranges: whole(image) },
    ];
  });
}
