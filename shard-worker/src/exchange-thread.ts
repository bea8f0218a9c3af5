/**
 * The exchange thread: moves frames between the engine and the peers, one bidirectional stream a pair, and does
 * nothing else. The rank with the lower number dials. Collectives of ranks that share memory do not come here; their
 * stream says that both live.
 */
import { parentPort } from "node:worker_threads";
import { Client, Server, type ClientDuplexStream, type ServerDuplexStream } from "@grpc/grpc-js";
// Not the whole of proto: its descriptors are 2 MB of heap that every collection of this thread would walk.
import {
  decodeFrame,
  encodeInPlace,
  frameHeader,
  type RawFrame,
} from "@tessera/proto/exchange-codec";
import {
  peerChannelCredentials,
  peerServerCredentials,
  type PeerTls,
} from "@tessera/proto/channel-security";
import {
  attachExchange,
  deliver,
  FRAME_HEADROOM,
  type InFrame,
  type OutFrame,
} from "@tessera/native/engine";
import { EXCHANGE_CHANNEL } from "./channel.js";
import type { FromExchange, JoinFailure, Sharing, ToExchange } from "./exchange-messages.js";
import { Spin } from "./exchange-spin.js";
import { SharedPairs } from "./shared-pairs.js";

type Stream = ClientDuplexStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

const PATH = "/tessera.shard.v1.Exchange/Connect";
const same = (bytes: Buffer): Buffer => bytes;
const SERVICE = {
  connect: {
    path: PATH,
    requestStream: true,
    responseStream: true,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  },
} as const;
/** Streams that said hello before this rank joined; the oldest is ended for one more. */
const MAX_WAITING = 64;
/** A peer says hello at once. */
const HELLO_DEADLINE_MS = 10_000;

interface Group {
  epoch: bigint;
  rank: number;
  planHash: string;
  handle: number;
  /** Ranks that this one is connected to. */
  peers: ReadonlySet<number>;
  streams: Map<number, Stream>;
  /** Why the dial of a rank failed. */
  refusals: Map<number, string>;
  clients: Client[];
  detach: () => void;
  timer: NodeJS.Timeout;
  spin: Spin;
  pairs: SharedPairs;
  sharing: Sharing | undefined;
  /** Joined, or the join failed. */
  settled: boolean;
}

if (parentPort === null) throw new Error("exchange-thread runs in a worker thread only");
const port = parentPort;
const say = (message: FromExchange) => port.postMessage(message);

let group: Group | undefined;
let server: Server | undefined;
/** Of both sides; undefined: plain text. */
let tls: PeerTls | undefined;
const waiting = new Map<string, { stream: Stream; hello: RawFrame }>();

/** A frame of this rank itself, not of its engine. */
function frameOf(
  { epoch, rank }: Group,
  facts: Pick<RawFrame, "kind"> & Partial<RawFrame>,
): Buffer {
  const { payload = new Uint8Array(0), ...given } = facts;
  const key = { epoch, sequence: BigInt(rank), item: 0n, planHash: "", sharedFile: "" };
  const header = frameHeader({ ...key, offset: 0, total: 0, ...given }, payload.length);
  return Buffer.concat([header, payload]);
}

function hello(from: Group): Buffer {
  const { planHash, pairs } = from;
  return frameOf(from, { kind: "hello", planHash, sharedFile: pairs.sharedFile });
}

function send(frame: OutFrame): void {
  const bytes = encodeInPlace(
    { ...frame, planHash: "", sharedFile: "" },
    frame.buffer,
    FRAME_HEADROOM,
  );
  for (const peer of frame.peers) group?.streams.get(peer)?.write(bytes);
  group?.spin.touch();
}

/** Ends the streams; what ends after this is not reported. */
function leave(): void {
  const left = group;
  group = undefined;
  if (left === undefined) return;
  clearTimeout(left.timer);
  left.detach();
  left.pairs.close();
  for (const stream of left.streams.values()) stream.end();
  for (const client of left.clients) client.close();
}

function lost(of: Group, rank: number, reason: string): void {
  if (group !== of) return;
  say({ kind: "lost", epoch: of.epoch, rank, reason });
}

function fail(code: JoinFailure, message: string): void {
  if (group === undefined) return;
  say({ kind: "failed", epoch: group.epoch, code, message });
  leave();
}

/** Takes a stream whose peer said hello into the group. */
function adopt(to: Group, stream: Stream, from: RawFrame, answer: boolean): void {
  const rank = Number(from.sequence);
  // The lower rank dials: whoever is answered is lower, whoever answers higher; each comes once.
  const expected = to.peers.has(rank) && (answer ? rank < to.rank : rank > to.rank);
  if (!expected || to.streams.has(rank)) return void stream.end();
  if (from.planHash !== to.planHash)
    return fail(
      "PLAN_MISMATCH",
      `ranks ${to.rank} and ${rank} have different plans: ${to.planHash.slice(0, 12)}, ${from.planHash.slice(0, 12)}`,
    );
  if (answer) stream.write(hello(to));
  to.streams.set(rank, stream);
  if (to.pairs.has(rank))
    stream.write(frameOf(to, { kind: "proof", payload: to.pairs.read(rank, from.sharedFile) }));
  settle(to);
}

/** Ends the join when every peer is connected and it is known who shares memory. */
function settle(to: Group): void {
  if (to.settled || to.streams.size !== to.peers.size || !to.pairs.settled) return;
  to.settled = true;
  clearTimeout(to.timer);
  const { epoch, rank, sharing } = to;
  const pairs = to.pairs.transports();
  const apart = pairs.find(({ transport }) => transport === "grpc");
  if (sharing?.required === true && apart !== undefined) {
    const message = `transport shm: ranks ${rank} and ${apart.rank} share no memory: ${apart.why}`;
    to.pairs.close();
    // The streams stay until the next epoch: peers have their own say and are not told of a loss.
    return say({ kind: "failed", epoch, code: "CONFIGURATION", message });
  }
  try {
    if (sharing !== undefined) to.pairs.start(to.handle, sharing);
    say({ kind: "joined", epoch, pairs });
  } catch (error) {
    fail("INTERNAL", String(error));
  }
}

/** Of who shares memory; false: it is another frame. */
function receiveControl(to: Group, peer: number, frame: RawFrame): boolean {
  if (frame.kind === "proof") {
    const item = to.pairs.judge(peer, frame.payload) ? 1n : 0n;
    to.streams.get(peer)?.write(frameOf(to, { kind: "verdict", item }));
  } else if (frame.kind === "verdict") to.pairs.hear(peer, frame.item === 1n);
  else return frame.kind === "hello";
  settle(to);
  return true;
}

function receive(to: Group, peer: number, bytes: Buffer): void {
  if (group !== to) return;
  try {
    const frame = decodeFrame(bytes);
    if (receiveControl(to, peer, frame)) return;
    deliver(to.handle, { ...frame, kind: frame.kind as InFrame["kind"], peer });
    to.spin.touch();
  } catch (error) {
    lost(to, peer, `damaged frame: ${String(error)}`);
  }
}

/** Watches a stream: the first frame is the hello, later ones go to the engine. */
function listen(stream: Stream, onHello: (frame: RawFrame) => void): void {
  let owner: Group | undefined;
  let peer = -1;
  const silent = setTimeout(() => stream.end(), HELLO_DEADLINE_MS);
  stream.on("data", (bytes: Buffer) => {
    if (peer >= 0) {
      owner ??= group;
      if (owner !== undefined) receive(owner, peer, bytes);
      return;
    }
    try {
      const frame = decodeFrame(bytes);
      if (frame.kind !== "hello") throw new RangeError("the first frame is no hello");
      clearTimeout(silent);
      peer = Number(frame.sequence);
      onHello(frame);
    } catch {
      stream.end();
    }
  });
  const ended = (reason: string) => {
    clearTimeout(silent);
    for (const [key, held] of waiting) if (held.stream === stream) waiting.delete(key);
    const of = group;
    if (of !== undefined && of.streams.get(peer) === stream) lost(of, peer, reason);
  };
  stream.on("error", (error: Error) => ended(error.message));
  stream.on("end", () => ended("its stream ended"));
  stream.on("close", () => ended("its stream closed"));
}

function accept(stream: ServerDuplexStream<Buffer, Buffer>): void {
  stream.on("end", () => stream.end());
  listen(stream, (frame) => {
    if (group !== undefined && group.epoch === frame.epoch)
      return adopt(group, stream, frame, true);
    const key = `${frame.epoch}/${frame.sequence}`;
    const oldest = waiting.size >= MAX_WAITING ? [...waiting.values()][0] : waiting.get(key);
    oldest?.stream.end();
    if (oldest !== undefined) waiting.delete(`${oldest.hello.epoch}/${oldest.hello.sequence}`);
    waiting.set(key, { stream, hello: frame });
  });
}

function dial(to: Group, rank: number, address: string): void {
  const client = new Client(address, peerChannelCredentials(tls), EXCHANGE_CHANNEL);
  to.clients.push(client);
  const stream = client.makeBidiStreamRequest(PATH, same, same);
  listen(stream, (frame) => {
    if (group === to && Number(frame.sequence) === rank) adopt(to, stream, frame, false);
  });
  stream.on("error", ({ message }: Error) => to.refusals.set(rank, message));
  stream.write(hello(to));
}

/** Everyone else; of two ranks that only encode neither. */
function peersOf({ peers, rank, size }: Extract<ToExchange, { kind: "join" }>): Set<number> {
  const ranks = peers.map((_, i) => i);
  return new Set(ranks.filter((i) => i !== rank && (i < size || rank < size)));
}

function join(message: Extract<ToExchange, { kind: "join" }>): void {
  leave();
  const { epoch, rank, planHash, handle } = message;
  const peers = peersOf(message);
  const missing = () =>
    [...peers].filter((peer) => !joined.streams.has(peer) || !joined.pairs.knows(peer));
  const detach = attachExchange(handle, send);
  const late = () =>
    fail(
      "RANK_LOST",
      [`rank ${missing().join(", ")} did not connect within ${message.deadlineMs} ms`]
        .concat([...joined.refusals.values()].slice(0, 1))
        .join(": "),
    );
  const timer = setTimeout(late, message.deadlineMs);
  const joined: Group = {
    epoch,
    rank,
    planHash,
    handle,
    peers,
    streams: new Map(),
    refusals: new Map(),
    clients: [],
    detach,
    timer,
    spin: new Spin(message.spinUs),
    pairs: new SharedPairs(message),
    sharing: message.sharing,
    settled: false,
  };
  group = joined;
  if (peers.size === 0) return settle(joined);
  for (const [key, held] of waiting) {
    if (held.hello.epoch > epoch) continue;
    waiting.delete(key);
    if (held.hello.epoch === epoch) adopt(joined, held.stream, held.hello, true);
    else held.stream.end();
  }
  message.peers.forEach((address, i) => {
    if (i > rank && peers.has(i)) dial(joined, i, address);
  });
}

function start({ host, tls: given }: Extract<ToExchange, { kind: "listen" }>): void {
  tls = given && {
    ca: Buffer.from(given.ca),
    cert: Buffer.from(given.cert),
    key: Buffer.from(given.key),
  };
  server = new Server(EXCHANGE_CHANNEL);
  server.addService(SERVICE, { connect: accept });
  server.bindAsync(`${host}:0`, peerServerCredentials(tls), (error, bound) => {
    if (error !== null) throw error;
    say({ kind: "listening", port: bound });
  });
}

port.on("message", (message: ToExchange) => {
  switch (message.kind) {
    case "listen":
      return start(message);
    case "join":
      try {
        return join(message);
      } catch (error) {
        const { epoch } = message;
        leave();
        return say({ kind: "failed", epoch, code: "INTERNAL", message: String(error) });
      }
    case "leave":
      return leave();
    case "close":
      leave();
      server?.forceShutdown();
      port.close();
  }
});
