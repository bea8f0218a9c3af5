/** The explanation of `tessera tiles` as lines of text. */
import type { Range } from "@tessera/model";
import type { GridCandidate, GridChoice } from "@tessera/coordinator/request";
import { columns } from "./text-table.js";
import type { Explanation, PlacedTile } from "./tiles-explain.js";

function reason(candidate: GridCandidate, { candidates, width, height }: GridChoice): string {
  const [best] = candidates;
  const pixels = width * height;
  if (best === undefined || candidate.distance > best.distance) return "";
  const tied = candidates.filter(({ distance }) => distance === best.distance).length > 1;
  if (candidate.chosen)
    return tied && pixels > candidate.tiePixels && candidate.columns * candidate.rows > 1
      ? `chosen: as near as smaller ones, and the picture has more than ${candidate.tiePixels} pixels`
      : "chosen";
  return candidate.columns * candidate.rows > best.columns * best.rows
    ? `as near, but the picture would need more than ${candidate.tiePixels} pixels`
    : "as near, but smaller";
}

function gridText(choice: GridChoice): string[] {
  const rows = choice.candidates.map((candidate) => [
    `  ${candidate.columns} × ${candidate.rows}`,
    String(candidate.columns * candidate.rows),
    candidate.ratio.toFixed(3),
    candidate.distance.toFixed(3),
    reason(candidate, choice),
  ]);
  return columns([["  grid", "tiles", "ratio", "distance", ""], ...rows], [1, 2, 3]);
}

function cutText({ choice, tileSize }: Explanation): string {
  const { columns: across = 1, rows: down = 1 } = choice.candidates[0] ?? {};
  const tiles = across * down;
  const thumbnail = choice.patches > tiles ? ", and the thumbnail" : "";
  return (
    `resized to ${across * tileSize} × ${down * tileSize} pixels, cut into ` +
    `${tiles === 1 ? "1 tile" : `${tiles} tiles`}${thumbnail}: ` +
    `${choice.patches === 1 ? "1 patch" : `${choice.patches} patches`}`
  );
}

function sizesText({ sizes, tokenizer }: Explanation): string[] {
  if (sizes.length === 0) return ["the tile's size gives no whole rows: no tokens are counted"];
  const rows = sizes.map(({ modelType, decoderTokens, streamRows }) => [
    `  ${modelType}`,
    String(decoderTokens),
    streamRows === 0 ? "–" : String(streamRows),
  ]);
  const whose = tokenizer === "model" ? "the model's" : "the public";
  return [
    `in the decoder, from <Image> to </Image> and a newline, by ${whose} tokenizer:`,
    ...columns([["  variant", "tokens", "rows in the stream"], ...rows], [1, 2]),
  ];
}

function rangeText(name: string, range: Range | undefined): string[] {
  return range === undefined ? [] : [`${name} ${range.start}–${range.start + range.count - 1}`];
}

function placeText({ tag, rows, streamTag, streamRows }: PlacedTile): [string, string] {
  const text = [...rangeText("tag", tag), ...rangeText("rows", rows)];
  const stream = [...rangeText("tag", streamTag), ...rangeText("rows", streamRows)];
  return [text.join(", ") || "–", stream.join(", ") || "–"];
}

const SIGHTS = {
  "own tile at tags, then all":
    "a tag's tokens see their own tile's rows, later tokens all rows of the stream",
  all: "the image's tokens and later ones see all rows of the stream",
};

function placementText({ placement }: Explanation): string[] {
  if (placement === undefined) return [];
  const rows = placement.tiles.map((tile) => [
    `  ${tile.tile}`,
    tile.tagText,
    ...placeText(tile),
    tile.tagIds?.join(" ") ?? "",
  ]);
  const heads = ["  tile", "tag", "tokens of the text", "rows of the stream"];
  const ids = placement.tiles.some(({ tagIds }) => tagIds !== undefined) ? "ids of the tag" : "";
  return [
    "",
    `${placement.modelType}, counted from the image's first token and the stream's first row:`,
    ...columns([[...heads, ids], ...rows], []),
    ...(placement.sight === undefined ? [] : [SIGHTS[placement.sight]]),
  ];
}

export function explanationText(explanation: Explanation): string[] {
  const { file, choice, tileSize, maxTiles, picture } = explanation;
  return [
    `${file}: ${choice.width} × ${choice.height} pixels, ratio ${choice.ratio.toFixed(3)}`,
    `tiles of ${tileSize} × ${tileSize} pixels, at most ${maxTiles}; the nearest ratio is chosen:`,
    ...gridText(choice),
    cutText(explanation),
    ...sizesText(explanation),
    ...placementText(explanation),
    "",
    `drawn in ${picture}`,
  ];
}
