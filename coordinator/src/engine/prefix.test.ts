import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_TOKENS } from "@tessera/model";
import type { PreparedRequest } from "../request/types.js";
import { BlockKeys, rootKey } from "./prefix.js";
import { preparedOf } from "./prepared.fixture.js";

const TOKENS = Array.from({ length: 3 * BLOCK_TOKENS }, (_, i) => i % 50);
const OWNER = { model: "m", tenant: "t", cacheSalt: "" };

/** Rows of a tile in the first block, a stream that is seen from the first block on. */
const PICTURE: Partial<PreparedRequest> = {
  tiles: [{ sha256: "tile a", pixels: new Uint8Array(3) }],
  imageRows: [{ position: 4, tile: 0, firstRow: 0, count: 8 }],
  streams: [{ key: "stream a", tiles: [{ tagIds: [], tile: 0 }], rowCount: 64 }],
  sights: [{ position: 20, ranges: [{ stream: 0, first: 0, end: 64 }] }],
};

/** Of the three blocks. */
function keys(change: Partial<PreparedRequest> = {}, of: object = {}, tokens = TOKENS): string[] {
  const prepared = preparedOf({ ...PICTURE, ...change });
  const chain = new BlockKeys(rootKey({ ...OWNER, ...of }), prepared);
  return [0, 1, 2].map((index) => chain.keyOf(index, tokens));
}

test("keys: equal contents have equal keys, whichever block is asked for first", () => {
  assert.deepEqual(keys(), keys());
  assert.equal(new Set(keys()).size, 3);
  const chain = new BlockKeys(rootKey(OWNER), preparedOf(PICTURE));
  assert.equal(chain.keyOf(2, TOKENS), keys()[2]);
  assert.equal(chain.keyOf(0, TOKENS), keys()[0]);
});

test("keys: another owner, or anything that the rows depend on, makes the block and all behind it others", () => {
  const [run] = PICTURE.imageRows ?? [];
  const [stream] = PICTURE.streams ?? [];
  assert.ok(run && stream);
  const sight = (position: number, first: number, end: number) => ({
    sights: [{ position, ranges: [{ stream: 0, first, end }] }],
  });
  const ones: Record<string, string[]> = {
    model: keys({}, { model: "other" }),
    tenant: keys({}, { tenant: "other" }),
    salt: keys({}, { cacheSalt: "s" }),
    "tenant and salt run together": keys({}, { tenant: "ts", cacheSalt: "" }),
    "salt and tenant run together": keys({}, { tenant: "", cacheSalt: "ts" }),
    token: keys({}, {}, [9, ...TOKENS.slice(1)]),
    tile: keys({ tiles: [{ sha256: "tile b", pixels: new Uint8Array(3) }] }),
    "no rows": keys({ imageRows: [] }),
    "place of the rows": keys({ imageRows: [{ ...run, position: 5 }] }),
    "which rows": keys({ imageRows: [{ ...run, firstRow: 1 }] }),
    "how many rows": keys({ imageRows: [{ ...run, count: 7 }] }),
    stream: keys({ streams: [{ ...stream, key: "stream b" }] }),
    "nothing seen": keys({ sights: [] }),
    "seen from elsewhere on": keys(sight(21, 0, 64)),
    "first row seen": keys(sight(20, 1, 64)),
    "last row seen": keys(sight(20, 0, 63)),
  };
  const all = [keys(), ...Object.values(ones)];
  for (const index of [0, 1, 2])
    assert.equal(new Set(all.map((chain) => chain[index])).size, all.length, `block ${index}`);
});

test("keys: what comes later changes none before it; a fork has the prompt's, and goes its own way", () => {
  const later = keys({ sights: [{ position: BLOCK_TOKENS, ranges: [] }] });
  const nothing = keys({ sights: [] });
  assert.equal(later[0], nothing[0]);
  const whole = new BlockKeys(rootKey(OWNER), preparedOf(PICTURE));
  keys().forEach((key, index) => assert.equal(whole.keyOf(index, TOKENS), key));
  const other = TOKENS.map((token, i) => (i < 40 ? token : token + 1));
  const fork = whole.fork(40);
  assert.equal(fork.keyOf(0, other), keys()[0]);
  assert.notEqual(fork.keyOf(1, other), keys()[1]);
  assert.equal(whole.keyOf(1, TOKENS), keys()[1]);
});
