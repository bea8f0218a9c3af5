/**
 * The raw-buffer codec of `Exchange`: frames are `ConnectRequest{frame}` on the wire (`ConnectResponse` has the same
 * form), but the header is written into the room before the payload and the payload is never copied.
 */

export interface RawFrame {
  kind: keyof typeof KEY_TAGS;
  epoch: bigint;
  /** Step, encode, or (hello, proof, verdict) rank. */
  sequence: bigint;
  /** Call, or embedding id; of a verdict 1 or 0. */
  item: bigint;
  /** Of a hello. */
  planHash: string;
  /** Of a hello: name of the file of shared memory; empty: none. */
  sharedFile: string;
  offset: number;
  total: number;
  payload: Uint8Array;
}

/** Field numbers of Frame.key and their tags. */
const KEY_TAGS = {
  hello: 0x0a,
  collective: 0x12,
  embedding: 0x1a,
  encodeCollective: 0x3a,
  proof: 0x42,
  verdict: 0x4a,
} as const;
/** At most this many bytes stand before the payload of a tensor's piece. */
export const MAX_HEADER_BYTES = 96;

/** A plan hash is hex SHA-256. */
const MAX_HASH_BYTES = 64;
const MAX_NAME_BYTES = 64;

function putVarint(out: number[], value: bigint): void {
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
}

function putField(out: number[], field: number, value: bigint): void {
  if (value === 0n) return;
  out.push(field << 3);
  putVarint(out, value);
}

function putText(out: number[], field: number, text: string, limit: number): void {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > limit)
    throw new RangeError(`field ${field} of a hello has ${bytes.length} bytes, limit ${limit}`);
  if (bytes.length > 0) out.push((field << 3) | 2, bytes.length, ...bytes);
}

function keyBytes(frame: Omit<RawFrame, "payload">): number[] {
  const key: number[] = [];
  putField(key, 1, frame.epoch);
  putField(key, 2, frame.sequence);
  if (frame.kind === "hello") {
    putText(key, 3, frame.planHash, MAX_HASH_BYTES);
    putText(key, 4, frame.sharedFile, MAX_NAME_BYTES);
  } else {
    putField(key, 3, frame.item);
  }
  return key;
}

/** Everything before the payload. */
export function frameHeader(frame: Omit<RawFrame, "payload">, payloadBytes: number): Buffer {
  const key = keyBytes(frame);
  const body: number[] = [KEY_TAGS[frame.kind], key.length, ...key];
  putField(body, 4, BigInt(frame.offset));
  putField(body, 5, BigInt(frame.total));
  if (payloadBytes > 0) {
    body.push(0x32);
    putVarint(body, BigInt(payloadBytes));
  }
  const head: number[] = [0x0a];
  putVarint(head, BigInt(body.length + payloadBytes));
  return Buffer.from([...head, ...body]);
}

/** A message in `buffer`, whose payload begins at `headroom`; the header is written right before it. */
export function encodeInPlace(
  frame: Omit<RawFrame, "payload">,
  buffer: Uint8Array,
  headroom: number,
): Buffer {
  const header = frameHeader(frame, buffer.length - headroom);
  if (header.length > headroom)
    throw new RangeError(`frame header of ${header.length} bytes, room for ${headroom}`);
  buffer.set(header, headroom - header.length);
  const start = headroom - header.length;
  return Buffer.from(buffer.buffer, buffer.byteOffset + start, buffer.length - start);
}

/** Reads protobuf fields from a buffer; throws RangeError on damage. */
class Reader {
  at = 0;
  constructor(readonly bytes: Uint8Array) {}
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) throw new RangeError("frame ends inside a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new RangeError("frame has a number of more than 64 bits");
  }
  block(): Uint8Array {
    const length = Number(this.varint());
    if (length > this.bytes.length - this.at) throw new RangeError("frame ends inside a field");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  /** Calls `take` with field number and value until the end. */
  fields(take: (field: number, value: bigint | Uint8Array) => void): void {
    while (this.at < this.bytes.length) {
      const tag = Number(this.varint());
      if (tag > 0xffffffff || tag < 8) throw new RangeError(`frame has field number ${tag / 8}`);
      const type = tag & 7;
      if (type !== 0 && type !== 2) throw new RangeError(`frame has a field of wire type ${type}`);
      take(tag >>> 3, type === 0 ? this.varint() : this.block());
    }
  }
}

function asNumber(value: bigint | Uint8Array): bigint {
  if (typeof value !== "bigint") throw new RangeError("frame has bytes where a number must be");
  return value;
}

function asBytes(value: bigint | Uint8Array): Uint8Array {
  if (typeof value === "bigint") throw new RangeError("frame has a number where bytes must be");
  return value;
}

function asPlace(value: bigint | Uint8Array, name: string): number {
  const place = Number(asNumber(value));
  if (!Number.isSafeInteger(place))
    throw new RangeError(`frame has an ${name} of ${String(value)}`);
  return place;
}

function readKey(frame: RawFrame, bytes: Uint8Array): void {
  new Reader(bytes).fields((field, value) => {
    if (field === 1) frame.epoch = asNumber(value);
    if (field === 2) frame.sequence = asNumber(value);
    if (frame.kind !== "hello") {
      if (field === 3) frame.item = asNumber(value);
      return;
    }
    if (field === 3) frame.planHash = Buffer.from(asBytes(value)).toString("utf8");
    if (field === 4) frame.sharedFile = Buffer.from(asBytes(value)).toString("utf8");
  });
}

const KINDS: Partial<Record<number, RawFrame["kind"]>> = {
  1: "hello",
  2: "collective",
  3: "embedding",
  7: "encodeCollective",
  8: "proof",
  9: "verdict",
};

/** The payload is a view into `bytes`. @throws RangeError on anything that is no frame. */
export function decodeFrame(bytes: Uint8Array): RawFrame {
  const frame: RawFrame = {
    kind: "hello",
    epoch: 0n,
    sequence: 0n,
    item: 0n,
    planHash: "",
    sharedFile: "",
    offset: 0,
    total: 0,
    payload: new Uint8Array(0),
  };
  let keys = 0;
  new Reader(bytes).fields((outer, inner) => {
    if (outer !== 1) return;
    new Reader(asBytes(inner)).fields((field, value) => {
      const kind = KINDS[field];
      if (kind !== undefined) {
        keys++;
        frame.kind = kind;
        readKey(frame, asBytes(value));
      }
      if (field === 4) frame.offset = asPlace(value, "offset");
      if (field === 5) frame.total = asPlace(value, "total");
      if (field === 6) frame.payload = asBytes(value);
    });
  });
  if (keys !== 1) throw new RangeError(`frame has ${keys} keys, must have one`);
  return frame;
}
