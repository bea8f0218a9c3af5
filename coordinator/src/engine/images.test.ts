import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { PreparedRequest } from "../request/types.js";
import { ImageStore, type RequestImages } from "./images.js";
import { preparedOf } from "./prepared.fixture.js";

const LIMITS = { maxEmbeddings: 8, crossBlockCount: 8, maxStreamRows: 80 };

/** Tiles `a` … of one letter each; those of `text` have a row in it, those of a stream 16 rows each. */
function requestOf(
  from: { text?: string; streams?: string[] },
  tenant = "default",
): PreparedRequest {
  const { text = "", streams = [] } = from;
  const names = [...new Set([...text, ...streams.join("")])];
  return preparedOf({
    tenant,
    tiles: names.map((sha256) => ({ sha256, pixels: new Uint8Array(3) })),
    imageRows: [...text].map((name, position) => ({
      position,
      tile: names.indexOf(name),
      firstRow: 0,
      count: 1,
    })),
    streams: streams.map((key) => ({
      key,
      tiles: [...key].map((name) => ({ tagIds: [], tile: names.indexOf(name) })),
      rowCount: 16 * key.length,
    })),
  });
}

function hold(store: ImageStore, prepared: PreparedRequest): RequestImages {
  return store.hold(prepared, 0)?.images ?? assert.fail("there is no room");
}

/** Gives out and encodes what waits. → how many tiles. */
function encode(store: ImageStore, images: RequestImages): number {
  const waiting = images.tiles.filter((tile) => tile?.value.state === "waiting");
  for (const tile of waiting) {
    if (tile === undefined) continue;
    store.giveOut(tile);
    store.encoded(tile.value);
  }
  return waiting.length;
}

/** A plan with what was released, answered. */
function plan(store: ImageStore) {
  const released = store.takeReleased();
  store.gone(released.embeddings);
  return { embeddings: released.embeddings.map(Number), streams: released.streams.map(Number) };
}

test("images: equal tiles of two requests of one tenant are encoded once, of two tenants twice", () => {
  const store = new ImageStore(LIMITS);
  const [first, second] = [0, 0].map(() => hold(store, requestOf({ text: "ab" })));
  const other = hold(store, requestOf({ text: "ab" }, "other"));
  assert.ok(first !== undefined && second !== undefined);
  assert.deepEqual([encode(store, first), encode(store, second), encode(store, other)], [2, 0, 2]);
  assert.ok(store.ready(requestOf({ text: "ab" }), second));
  for (const images of [first, second, other]) store.leave(images);
  const { embeddings, idleEmbeddings } = store.load();
  assert.deepEqual([embeddings, idleEmbeddings], [0, 4]);
});

test("images: a stream is opened once its tiles are encoded, its tiles' embeddings are idle then", () => {
  const store = new ImageStore(LIMITS);
  const prepared = requestOf({ text: "c", streams: ["ab"] });
  const images = hold(store, prepared);
  assert.deepEqual(store.openStreams([{ prepared, images }]), []);
  assert.equal(encode(store, images), 3);
  assert.ok(!store.ready(prepared, images));
  const [opened] = store.openStreams([{ prepared, images }]);
  assert.deepEqual(
    opened?.tiles.map(({ tile }) => tile.embeddingId),
    [2n, 3n],
  );
  assert.ok(store.ready(prepared, images));
  assert.deepEqual(store.load(), {
    embeddings: 1,
    idleEmbeddings: 2,
    usedCrossBlocks: 1,
    idleCrossBlocks: 0,
  });
  assert.deepEqual(store.openStreams([{ prepared, images }]), []);
});

test("images: who sees a computed stream needs none of its tiles; one on its way is shared with them", () => {
  const store = new ImageStore(LIMITS);
  const prepared = requestOf({ streams: ["ab"] });
  const [first, second] = [0, 0].map(() => store.hold(prepared, 0) ?? assert.fail());
  assert.ok(first !== undefined && second !== undefined);
  assert.deepEqual(second.counts, {
    tiles: { asked: 2, found: 2 },
    streams: { asked: 1, found: 0 },
  });
  encode(store, first.images);
  store.leave(first.images);
  assert.equal(store.openStreams([{ prepared, images: second.images }]).length, 1);
  const third = store.hold(prepared, 0) ?? assert.fail();
  assert.deepEqual(third.counts, {
    tiles: { asked: 0, found: 0 },
    streams: { asked: 1, found: 1 },
  });
  assert.ok(store.ready(prepared, third.images));
});

test("images: for room the stream left longest ago is closed and its blocks are used again", () => {
  const store = new ImageStore({ ...LIMITS, crossBlockCount: 2 });
  const open = (name: string) => {
    const prepared = requestOf({ streams: [name] });
    const images = hold(store, prepared);
    encode(store, images);
    const [opened] = store.openStreams([{ prepared, images }]);
    store.leave(images);
    return opened?.held ?? assert.fail("nothing was opened");
  };
  const [a, b, c] = ["ab", "cd", "ef"].map(open);
  assert.deepEqual(plan(store).streams, [Number(a?.streamId)]);
  assert.deepEqual([c?.blockIds, b?.state], [a?.blockIds, "open"]);
});

test("images: one request's streams are opened over several steps when they have too many rows for one", () => {
  const store = new ImageStore(LIMITS);
  const prepared = requestOf({ streams: ["abc", "def", "gh"] });
  const images = hold(store, prepared);
  encode(store, images);
  const steps = [0, 0, 0].map(() => store.openStreams([{ prepared, images }]).length);
  assert.deepEqual(steps, [2, 1, 0]);
});

test("images: a tile nobody wants any more is released when it has been encoded, not before", () => {
  const store = new ImageStore({ ...LIMITS, maxEmbeddings: 1 });
  const images = hold(store, requestOf({ text: "a" }));
  const [tile] = images.tiles;
  assert.ok(tile !== undefined);
  store.giveOut(tile);
  store.leave(images);
  hold(store, requestOf({ text: "b" }));
  assert.deepEqual([plan(store).embeddings, store.room], [[], 0]);
  store.encoded(tile.value);
  assert.deepEqual(store.takeReleased().embeddings, [1n]);
  assert.equal(store.room, 0);
  store.gone([1n]);
  assert.equal(store.room, 1);
});

test("images: without room for all of a request nothing of it is held", () => {
  const store = new ImageStore(LIMITS);
  hold(store, requestOf({ text: "abcde" }));
  const before = store.load();
  assert.equal(store.hold(requestOf({ text: "fghi", streams: ["jk"] }), 0), undefined);
  assert.deepEqual(store.load(), before);
});

test("images: the audit finds what is held for nobody", () => {
  const store = new ImageStore(LIMITS);
  const [first, second] = [0, 0].map(() => hold(store, requestOf({ text: "a", streams: ["bc"] })));
  assert.ok(first !== undefined && second !== undefined);
  store.audit([first, second]);
  assert.throws(() => store.audit([first]), /holders of default\/a/);
  store.leave(second);
  store.audit([first]);
});

const texts = fc.subarray([..."abcdefgh"], { maxLength: 4 }).map((list) => list.join(""));
const actions = fc.array(
  fc.oneof(
    fc.record({ text: texts, streams: fc.uniqueArray(texts.filter((text) => text !== "")) }),
    fc.record({ leave: fc.nat(9) }),
  ),
  { maxLength: 40 },
);

test("images: whatever comes and goes, blocks and embeddings are never given twice, and all come back", () => {
  fc.assert(
    fc.property(actions, (list) => {
      const store = new ImageStore(LIMITS);
      const onWorkers = new Map<string, Set<bigint>>([
        ["tile", new Set()],
        ["stream", new Set()],
      ]);
      const live: { prepared: PreparedRequest; images: RequestImages }[] = [];
      for (const action of list) {
        if ("leave" in action) {
          const [one] = live.splice(action.leave, 1);
          if (one !== undefined) store.leave(one.images);
        } else {
          const prepared = requestOf({ ...action, streams: action.streams.slice(0, 2) });
          const held = store.hold(prepared, 0);
          if (held !== undefined) live.push({ prepared, images: held.images });
        }
        // The next plan.
        const { embeddings, streams } = store.takeReleased();
        for (const id of embeddings) assert.ok(onWorkers.get("tile")?.delete(id));
        for (const id of streams) assert.ok(onWorkers.get("stream")?.delete(id));
        store.gone(embeddings);
        for (const { images } of live) encodeInto(store, images, onWorkers.get("tile"));
        const blocks = new Set<number>();
        for (const { held, tiles } of store.openStreams(live)) {
          for (const { tile } of tiles) assert.ok(onWorkers.get("tile")?.has(tile.embeddingId));
          onWorkers.get("stream")?.add(held.streamId);
          for (const block of held.blockIds) assert.ok(!blocks.has(block) && blocks.add(block));
        }
        assert.ok((onWorkers.get("tile")?.size ?? 0) <= LIMITS.maxEmbeddings);
        store.audit(live.map(({ images }) => images));
      }
      for (const { images } of live) store.leave(images);
      const { embeddings, usedCrossBlocks } = store.load();
      assert.deepEqual([embeddings, usedCrossBlocks], [0, 0]);
    }),
  );
});

function encodeInto(store: ImageStore, images: RequestImages, tiles: Set<bigint> | undefined) {
  for (const tile of images.tiles) {
    if (tile?.value.state !== "waiting" || store.room <= 0) continue;
    store.giveOut(tile);
    store.encoded(tile.value);
    tiles?.add(tile.value.embeddingId);
  }
}
