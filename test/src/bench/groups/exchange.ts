/** Round trips of the exchange between two processes, beside a bare TCP connection between the same two. */
import assert from "node:assert/strict";
import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { BenchContext } from "../context.js";
import type { FromPeer, ToPeer } from "../exchange-messages.js";
import { figure, type Figure } from "../figure.js";
import { median, pairedRatio, percentile } from "../statistics.js";

const PAYLOADS = [
  { label: "1KiB", bytes: 1 << 10, count: 200 },
  { label: "16KiB", bytes: 16 << 10, count: 200 },
  { label: "64KiB", bytes: 64 << 10, count: 100 },
  { label: "1MiB", bytes: 1 << 20, count: 25 },
];
const DEADLINE_MS = 60_000;
/** A round trip is short: more rounds than of other groups cost nothing. */
const ROUNDS_FACTOR = 3;

class PeerProcess {
  private constructor(
    private readonly child: ChildProcess,
    readonly ports: Extract<FromPeer, { kind: "started" }>,
  ) {}

  static async start(spinUs: number): Promise<PeerProcess> {
    const child = fork(fileURLToPath(new URL("../exchange-peer.js", import.meta.url)));
    const said = await ask(child, { kind: "start", spinUs });
    assert(said.kind === "started");
    return new PeerProcess(child, said);
  }
  ask(message: ToPeer): Promise<FromPeer> {
    return ask(this.child, message);
  }
  async times(message: ToPeer): Promise<number[]> {
    const said = await this.ask(message);
    assert(said.kind === "times");
    return said.us;
  }
  /** The process ends when its channel closes. */
  stop(): void {
    this.child.disconnect();
  }
}

function ask(child: ChildProcess, message: ToPeer): Promise<FromPeer> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      clearTimeout(timer);
      child.removeAllListeners();
      settle();
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      done(() => reject(new Error(`exchange peer: ${message.kind} took over ${DEADLINE_MS} ms`)));
    }, DEADLINE_MS);
    child.once("message", (said: FromPeer) => done(() => resolve(said)));
    child.once("exit", (code) => done(() => reject(new Error(`exchange peer ended with ${code}`))));
    child.send(message);
  });
}

type Payload = (typeof PAYLOADS)[number];

interface Samples {
  exchange: number[];
  tcp: number[];
  rounds: { value: number; rival: number }[];
}

async function measure(peers: PeerProcess[], payload: Payload, rounds: number): Promise<Samples> {
  const [first] = peers;
  assert(first);
  const samples: Samples = { exchange: [], tcp: [], rounds: [] };
  for (let round = -1; round < rounds; round++) {
    const { count } = payload;
    const [exchange = []] = await Promise.all(
      peers.map((peer) => peer.times({ kind: "exchange", count })),
    );
    const tcp = await first.times({ kind: "tcp", count });
    if (round < 0) continue; // warms up
    // The first step of a burst waits for the other process to be told of it.
    samples.exchange.push(...exchange.slice(1));
    samples.tcp.push(...tcp.slice(1));
    samples.rounds.push({ value: median(exchange.slice(1)), rival: median(tcp.slice(1)) });
  }
  return samples;
}

function figuresOf({ label }: Payload, { exchange, tcp, rounds }: Samples): Figure[] {
  const name = `exchange.${label}`;
  const trip = `round trip of ${label} between two engines over gRPC on loopback`;
  const unit = "us";
  return [
    figure({ name: `${name}.median`, value: median(exchange), unit, measure: trip }),
    figure({ name: `${name}.p99`, value: percentile(exchange, 0.99), unit, measure: trip }),
    figure({
      name: `${name}.tcp_median`,
      value: median(tcp),
      unit,
      measure: `the same bytes to and fro over bare TCP in Node, in turn with the exchange`,
    }),
    figure({
      name: `${name}.ratio`,
      value: pairedRatio(rounds),
      unit: "ratio",
      measure: `${trip}, to the same bytes over bare TCP (lower is better)`,
    }),
  ];
}

async function measurePayload(payload: Payload, rounds: number, spinUs: number): Promise<Samples> {
  const peers = await Promise.all([PeerProcess.start(spinUs), PeerProcess.start(spinUs)]);
  try {
    const exchange = peers.map(({ ports }) => `127.0.0.1:${ports.exchangePort}`);
    const tcpPort = peers[1].ports.tcpPort;
    const { bytes } = payload;
    await Promise.all(
      peers.map((peer, rank) => peer.ask({ kind: "join", rank, bytes, exchange, tcpPort })),
    );
    return await measure(peers, payload, rounds);
  } finally {
    for (const peer of peers) peer.stop();
  }
}

export async function exchange({ rounds, log }: BenchContext): Promise<Figure[]> {
  const spinUs = Number(process.env["SPIN"] ?? 0);
  const figures: Figure[] = [];
  for (const payload of PAYLOADS) {
    const made = figuresOf(payload, await measurePayload(payload, ROUNDS_FACTOR * rounds, spinUs));
    for (const { name, value } of made) log(`${name}: ${value.toFixed(2)}`);
    figures.push(...made);
  }
  return figures;
}
