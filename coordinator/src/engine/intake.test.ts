import assert from "node:assert/strict";
import { test } from "node:test";
import { CoordinatorMetrics } from "../metrics.js";
import type { PreparedRequest } from "../request/types.js";
import { ActiveRequest, Sequence, type RequestSink } from "./active.js";
import { ImageStore } from "./images.js";
import { Intake } from "./intake.js";
import { preparedOf } from "./prepared.fixture.js";
import { BlockKeys } from "./prefix.js";

const ROOM = { maxSequences: 64 };
const UNREAD: RequestSink = {
  begun: () => undefined,
  promptScored: () => undefined,
  piece: () => undefined,
  done: () => undefined,
  failed: () => undefined,
};

function setup(maxEmbeddings = 8) {
  const metrics = new CoordinatorMetrics({ codes: [], ranks: 1, maxModelLen: 64 });
  const intake = new Intake(metrics);
  const images = new ImageStore({ maxEmbeddings, crossBlockCount: 0, maxStreamRows: 0 });
  const add = (requestId: string, change: Partial<PreparedRequest> = {}, weight = 1) => {
    const prepared = preparedOf({ requestId, ...change });
    const request = new ActiveRequest(prepared, UNREAD, { weight, grammar: undefined }, 0);
    intake.add(request);
    return request;
  };
  const begin = (room = ROOM) => {
    intake.holdImages(images);
    return intake.begin(images, room).map((request) => {
      run(request);
      return request.prepared.requestId;
    });
  };
  const end = (request: ActiveRequest) => {
    request.ended = true;
    request.sequences = [];
    if (request.images !== undefined) images.leave(request.images);
    intake.remove(request);
  };
  return { intake, images, add, begin, end };
}

let nextId = 1n;
/** As the loop does: its first choice is a sequence that a plan has named. */
function run(request: ActiveRequest): void {
  request.scheduledMs = 0;
  request.unforked = request.prepared.choiceCount - 1;
  const sequence = new Sequence(nextId++, request, 0, 0, {
    text: { tokenCount: 0, push: () => assert.fail(), end: () => assert.fail() },
    keys: new BlockKeys("", request.prepared),
    matcher: undefined,
  });
  sequence.opened = true;
  request.sequences.push(sequence);
}

const tiles = (count: number, name: string): Partial<PreparedRequest> => ({
  imageRows: Array.from({ length: count }, (_, tile) => ({
    position: tile,
    tile,
    firstRow: 0,
    count: 1,
  })),
  tiles: Array.from({ length: count }, (_, i) => ({
    sha256: `${name} ${i}`,
    pixels: new Uint8Array(3),
  })),
});
const ids = (requests: ActiveRequest[]) => requests.map(({ prepared }) => prepared.requestId);

test("intake: the lower priority value first, then tenants by weight, then arrival", () => {
  const { intake, add, begin } = setup();
  const long = { promptIds: Array<number>(512).fill(1) };
  for (let i = 0; i < 6; i++) add(`a${i}`, { tenant: "a", ...long });
  for (let i = 0; i < 6; i++) add(`b${i}`, { tenant: "b", ...long }, 3);
  add("urgent", { tenant: "a", priority: -1 });
  assert.equal(ids(intake.waiting())[0], "urgent");
  const order = [begin({ maxSequences: 5 }), begin({ maxSequences: 9 })].flat();
  assert.equal(order.length, 9);
  assert.equal(order.filter((id) => id.startsWith("b")).length, 6);
  for (const tenant of ["a", "b"]) {
    const own = order.filter((id) => id.startsWith(tenant));
    assert.deepEqual(own, [...own].sort());
  }
});

test("intake: tokens made for a tenant put it behind one that had none", () => {
  const { intake, add, begin } = setup();
  const running = add("a0", { tenant: "a" });
  begin();
  for (let i = 0; i < 5000; i++) intake.charge(running);
  for (let i = 1; i <= 20; i++) add(`a${i}`, { tenant: "a" });
  add("b0", { tenant: "b" });
  assert.equal(ids(intake.waiting())[0], "b0");
  assert.equal(intake.waitingTokens, 3 * 21);
});

test("intake: who waits for room for pictures is not passed by others that want it, and text is not held up", () => {
  const { intake, add, begin, end, images } = setup(3);
  const first = add("first", tiles(2, "first"));
  const large = add("large", tiles(3, "large"));
  const small = add("small", tiles(1, "small"));
  add("text");
  assert.deepEqual(begin(), ["text"]);
  assert.deepEqual(
    [first, large, small].map((request) => request.images !== undefined),
    [true, false, false],
  );
  assert.deepEqual(intake.withImages().length, 1);
  for (const entry of first.images?.tiles ?? []) {
    assert.ok(entry);
    images.giveOut(entry);
    images.encoded(entry.value);
  }
  assert.deepEqual(begin(), ["first"]);
  assert.equal(large.images, undefined);
  end(first);
  assert.deepEqual(begin(), []);
  assert.deepEqual(
    [large, small].map((request) => request.images !== undefined),
    [true, false],
  );
  end(large);
  assert.deepEqual(begin(), []);
  assert.notEqual(small.images, undefined);
});

test("intake: all choices of a request count, and one that does not fit is not passed", () => {
  const { add, begin, end } = setup();
  const two = add("two", { choiceCount: 2 });
  add("three", { choiceCount: 3 });
  add("one");
  const room = { maxSequences: 4 };
  assert.deepEqual(begin(room), ["two"]);
  assert.deepEqual(begin(room), []);
  end(two);
  assert.deepEqual(begin(room), ["three", "one"]);
  add("late");
  assert.deepEqual(begin(room), []);
});

test("intake: no more begin at once than one plan can tell the ranks of; the first always does", () => {
  const { add, begin, intake } = setup();
  const logitBias = Array.from({ length: 1 << 20 }, (_, tokenId) => ({ tokenId, bias: 1 }));
  for (let i = 0; i < 40; i++) add(`r${i}`, { sampling: { ...preparedOf().sampling, logitBias } });
  const begun = begin();
  assert.ok(begun.length >= 1 && begun.length < 40, `${begun.length}`);
  assert.equal(intake.waiting().length, 40 - begun.length);
  assert.deepEqual(begin()[0], `r${begun.length}`);
});
