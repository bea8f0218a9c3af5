import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  decodeFrame,
  encodeInPlace,
  frameHeader,
  MAX_HEADER_BYTES,
  type RawFrame,
} from "./exchange-codec.js";
import { ConnectRequestSchema, type ConnectRequest } from "./gen/tessera/shard/v1/exchange_pb.js";

const u64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(0n, 1n, 127n, 128n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
);
const u32 = fc.oneof(fc.nat(), fc.constantFrom(0, 0x7fffffff, 0xffffffff)).map(BigInt);
const place = fc.oneof(fc.nat(), fc.constantFrom(0, 2 ** 32, Number.MAX_SAFE_INTEGER));
const hash = fc.array(fc.constantFrom(..."0123456789abcdef"), { maxLength: 64 });

/** Of ranks, 32 bits wide. */
const ofRanks = ["hello", "proof", "verdict"];

/** Frames as workers send them: a hash and a shared file in a hello only, an item in the others only. */
const frames: fc.Arbitrary<RawFrame> = fc
  .record({
    kind: fc.constantFrom(
      "hello" as const,
      "collective" as const,
      "embedding" as const,
      "encodeCollective" as const,
      "proof" as const,
      "verdict" as const,
    ),
    epoch: u64,
    sequence: u64,
    narrow: u32,
    item: u64,
    planHash: hash.map((letters) => letters.join("")),
    sharedFile: hash.map((letters) => letters.join("")),
    proven: fc.boolean(),
    offset: place,
    total: place,
    payload: fc.uint8Array({ maxLength: 300 }),
  })
  .map(({ narrow, proven, ...frame }) => ({
    ...frame,
    sequence: ofRanks.includes(frame.kind) ? narrow : frame.sequence,
    item: {
      hello: 0n,
      collective: narrow,
      embedding: frame.item,
      encodeCollective: narrow,
      proof: 0n,
      verdict: proven ? 1n : 0n,
    }[frame.kind],
    planHash: frame.kind === "hello" ? frame.planHash : "",
    sharedFile: frame.kind === "hello" ? frame.sharedFile : "",
  }));

const call = { epoch: 1n, sequence: 2n, item: 3n, planHash: "", sharedFile: "" };

/** The same frame as the generated code has it. */
function message(frame: RawFrame): ConnectRequest {
  const { epoch, sequence, item, planHash, sharedFile } = frame;
  const step = { epoch, step: sequence, call: Number(item) };
  const rank = Number(sequence);
  const key = {
    hello: { case: "hello", value: { epoch, rank, planHash, sharedFile } },
    proof: { case: "sharedFileProof", value: { epoch, rank } },
    verdict: { case: "sharedFileVerdict", value: { epoch, rank, proven: item === 1n } },
    collective: { case: "collective", value: step },
    encodeCollective: { case: "encodeCollective", value: step },
    embedding: { case: "embedding", value: { epoch, encode: sequence, embeddingId: item } },
  } as const;
  return create(ConnectRequestSchema, {
    frame: {
      key: key[frame.kind],
      offset: BigInt(frame.offset),
      total: BigInt(frame.total),
      payload: frame.payload,
    },
  });
}

/** A hello has two texts besides. */
const ROOM = MAX_HEADER_BYTES + 132;

function encode(frame: RawFrame): Buffer {
  const buffer = new Uint8Array(ROOM + frame.payload.length);
  buffer.set(frame.payload, ROOM);
  return encodeInPlace(frame, buffer, ROOM);
}

test("exchange codec: protobuf-es reads what it writes, 64-bit values included", () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const bytes = Uint8Array.from(encode(frame));
      assert.deepEqual(fromBinary(ConnectRequestSchema, bytes), message(frame));
    }),
    { numRuns: 1000 },
  );
});

test("exchange codec: it reads what protobuf-es writes", () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const got = decodeFrame(toBinary(ConnectRequestSchema, message(frame)));
      assert.deepEqual(
        { ...got, payload: Buffer.from(got.payload) },
        {
          ...frame,
          payload: Buffer.from(frame.payload),
        },
      );
    }),
    { numRuns: 1000 },
  );
});

test("exchange codec: every header fits its room", () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const { length } = frameHeader(frame, 1 << 20);
      assert.ok(length <= MAX_HEADER_BYTES || frame.kind === "hello", `${length}`);
    }),
  );
});

test("exchange codec: the payload is a view into the message, not a copy", () => {
  const frame = { ...call, kind: "collective" } as const;
  const payload = Uint8Array.of(1, 2, 3);
  const bytes = encode({ ...frame, offset: 0, total: 3, payload });
  const got = decodeFrame(bytes).payload;
  bytes[bytes.length - 1] = 9;
  assert.deepEqual([...got], [1, 2, 9]);
});

test("exchange codec: fields of a later version are passed over", () => {
  const known = toBinary(
    ConnectRequestSchema,
    message({
      kind: "embedding",
      epoch: 7n,
      sequence: 1n,
      item: 2n,
      planHash: "",
      sharedFile: "",
      offset: 0,
      total: 0,
      payload: new Uint8Array(0),
    }),
  );
  // Field 15 of the outer message: a number, and bytes.
  const later = Buffer.concat([known, Buffer.from([0x78, 0x05, 0x7a, 0x02, 0x01, 0x02])]);
  assert.equal(decodeFrame(later).epoch, 7n);
});

const broken: [string, number[], RegExp][] = [
  ["nothing", [], /0 keys/],
  ["a frame without a key", [0x0a, 0x02, 0x20, 0x01], /0 keys/],
  ["two keys", [0x0a, 0x04, 0x12, 0x00, 0x1a, 0x00], /2 keys/],
  ["a frame that ends inside", [0x0a, 0x7f, 0x12], /ends inside a field/],
  ["a number that ends inside", [0x0a, 0x80], /ends inside a number/],
  ["a number of 71 bits", [0x0a, ...Array<number>(10).fill(0xff), 1], /more than 64 bits/],
  ["a field of fixed width", [0x0d, 0, 0, 0, 0], /wire type 5/],
  ["a number where the frame must be", [0x08, 0x01], /number where bytes/],
  ["bytes where the epoch must be", [0x0a, 0x04, 0x12, 0x02, 0x0a, 0x00], /bytes where a number/],
  [
    "an offset beyond 2⁵³",
    [0x0a, 0x0d, 0x12, 0x00, 0x20, ...Array<number>(9).fill(0xff), 0x01],
    /offset of 18446744073709551615/,
  ],
  ["a field number 0", [0x00, 0x01], /field number 0/],
];
for (const [name, bytes, message] of broken)
  test(`exchange codec: ${name} is a RangeError`, () => {
    assert.throws(
      () => decodeFrame(Uint8Array.from(bytes)),
      (error: unknown) => {
        assert.ok(error instanceof RangeError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
  });

test("exchange codec: damaged bytes are read or are a RangeError, in bounded time", () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });
  const sources = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    frames.map((frame) => Uint8Array.from(encode(frame))),
  );
  fc.assert(
    fc.property(sources, damage, fc.nat(), (source, places, length) => {
      const bytes = source.slice(0, length % (source.length + 1));
      for (const [at, value] of places) if (bytes.length > 0) bytes[at % bytes.length] = value;
      try {
        decodeFrame(bytes);
      } catch (error) {
        assert.ok(error instanceof RangeError, String(error));
      }
    }),
    { numRuns: 5000 },
  );
});

test("exchange codec: a header that does not fit its room is a RangeError", () => {
  const frame = { ...call, kind: "collective" } as const;
  assert.throws(
    () => encodeInPlace({ ...frame, offset: 0, total: 0 }, new Uint8Array(8), 4),
    /frame header of \d+ bytes, room for 4/,
  );
  const hello = { ...frame, kind: "hello" as const, planHash: "a".repeat(65), offset: 0, total: 0 };
  assert.throws(() => frameHeader(hello, 0), /field 3 of a hello has 65 bytes, limit 64/);
  const named = { ...hello, planHash: "", sharedFile: "s".repeat(65) };
  assert.throws(() => frameHeader(named, 0), /field 4 of a hello has 65 bytes, limit 64/);
});
