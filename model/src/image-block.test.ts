import assert from "node:assert/strict";
import { test } from "node:test";
import { imageLayout } from "./architectures/index.js";
import { placeImage, type ImageText } from "./image-block.js";

/** Three tiles of four rows; tags of 2, 3 and 4 ids, the first behind two more of `<Image>`, three of `</Image>`. */
const text: ImageText = {
  ids: { all: [4, 3, 4, 3], thumbnail: [6, 3] },
  tagIds: [2, 3, 4],
};
const one: ImageText = { ids: { all: [6, 3], thumbnail: [6, 3] }, tagIds: [4] };
const place = (modelType: "NVLM_D" | "NVLM_X" | "NVLM_H", of = text) =>
  placeImage(imageLayout({ modelType }), of, 4);
const range = (start: number, count: number) => ({ start, count });

test("placeImage: in D every tile's rows stand in the text behind its tag", () => {
  assert.deepEqual(place("NVLM_D"), {
    tokens: 26,
    streamRows: 0,
    sights: 0,
    tiles: [
      { tag: range(0, 4), rows: range(4, 4) },
      { tag: range(8, 3), rows: range(11, 4) },
      { tag: range(15, 4), rows: range(19, 4) },
    ],
  });
});

test("placeImage: in X tags stand in the text, all tiles in the stream, and a tag sees its own tile", () => {
  assert.deepEqual(place("NVLM_X"), {
    tokens: 14,
    streamRows: 12,
    // 11 ids of tags see 4 rows each, the last 3 ids all 12.
    sights: 11 * 4 + 3 * 12,
    tiles: [
      { tag: range(0, 4), streamRows: range(0, 4) },
      { tag: range(4, 3), streamRows: range(4, 4) },
      { tag: range(7, 4), streamRows: range(8, 4) },
    ],
  });
});

test("placeImage: in H the thumbnail stands in the text, regular tiles behind their tags in the stream", () => {
  assert.deepEqual(place("NVLM_H"), {
    tokens: 13,
    streamRows: 13,
    sights: 13 * 13,
    tiles: [
      { streamTag: range(0, 2), streamRows: range(2, 4) },
      { streamTag: range(6, 3), streamRows: range(9, 4) },
      { tag: range(0, 6), rows: range(6, 4) },
    ],
  });
});

test("placeImage: an H image of one tile is D's and has no stream", () => {
  assert.deepEqual(place("NVLM_H", one), place("NVLM_D", one));
  assert.equal(place("NVLM_H", one).streamRows, 0);
  assert.equal(place("NVLM_X", one).streamRows, 4);
});

test("placeImage: counts that do not fit the tags are a broken invariant", () => {
  const wrong = { ...text, ids: { ...text.ids, all: [4, 3] } };
  assert.throws(() => place("NVLM_X", wrong), /2 counts for 3 tags/);
});
