/** Round trips of the exchange between two processes, by gRPC and through shared memory, beside a bare TCP one. */
import assert from "node:assert/strict";
import { fork, type ChildProcess } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { chooseSpinUs, SPIN_US } from "@tessera/shard-worker/exchange";
import type { BenchContext } from "../context.js";
import type { FromPeer, ToPeer } from "../exchange-messages.js";
import { figure, type Figure } from "../figure.js";
import { median, pairedRatio, percentile } from "../statistics.js";

interface Payload {
  label: string;
  bytes: number;
  /** Round trips of a burst. */
  count: number;
  /** Of the median through shared memory, microseconds. */
  goal?: { atMost: number };
}

const PAYLOADS: Payload[] = [
  { label: "1KiB", bytes: 1 << 10, count: 200 },
  { label: "16KiB", bytes: 16 << 10, count: 200, goal: { atMost: 10 } },
  { label: "64KiB", bytes: 64 << 10, count: 100 },
  { label: "1MiB", bytes: 1 << 20, count: 25 },
];
/** Of a step through shared memory: telling JavaScript of each step would take longer than a round trip. */
const SHARED_TRIPS = 50;
const SHARED_STEPS = 20;
const DEADLINE_MS = 60_000;
/** A round trip is short: more rounds than of other groups cost nothing. */
const ROUNDS_FACTOR = 3;

class PeerProcess {
  private constructor(
    private readonly child: ChildProcess,
    readonly ports: Extract<FromPeer, { kind: "started" }>,
  ) {}

  static async start(): Promise<PeerProcess> {
    const child = fork(fileURLToPath(new URL("../exchange-peer.js", import.meta.url)));
    const said = await ask(child, { kind: "start" });
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

/** Two processes that are joined for round trips of one payload. */
class Pair {
  private constructor(private readonly peers: readonly [PeerProcess, PeerProcess]) {}

  static async join(
    { bytes }: Payload,
    spinUs: number,
    transport: "shm" | "grpc" = "grpc",
  ): Promise<Pair> {
    const peers = await Promise.all([PeerProcess.start(), PeerProcess.start()]);
    const pair = new Pair(peers);
    const exchange = peers.map(({ ports }) => `127.0.0.1:${ports.exchangePort}`);
    const { tcpPort } = peers[1].ports;
    const trips = transport === "shm" ? SHARED_TRIPS : 1;
    const common = { bytes, spinUs, exchange, tcpPort, transport, trips };
    try {
      await Promise.all(peers.map((peer, rank) => peer.ask({ kind: "join", rank, ...common })));
      return pair;
    } catch (error) {
      pair.stop();
      throw error;
    }
  }

  /** Microseconds; the first step of a burst is left out: it waits for the other process to be told of it. */
  async exchange(count: number): Promise<number[]> {
    const [times] = await Promise.all([
      this.peers[0].times({ kind: "exchange", count }),
      this.peers[1].times({ kind: "exchange", count }),
    ]);
    return times.slice(1);
  }
  async tcp(count: number): Promise<number[]> {
    return (await this.peers[0].times({ kind: "tcp", count })).slice(1);
  }
  stop(): void {
    for (const peer of this.peers) peer.stop();
  }
}

function ofMachine(): number {
  const peers = ["127.0.0.1:1", "127.0.0.1:2"];
  return chooseSpinUs(undefined, { peers, rank: 0, cores: availableParallelism() });
}

async function roundTrips(payload: Payload, { rounds, log }: BenchContext): Promise<Figure[]> {
  const { label, count, goal } = payload;
  const spinUs = ofMachine();
  const samples = { exchange: [] as number[], tcp: [] as number[], shm: [] as number[] };
  const pairs: { value: number; rival: number }[] = [];
  const pair = await Pair.join(payload, spinUs);
  const memory = await Pair.join(payload, spinUs, "shm").catch((error: unknown) => {
    pair.stop();
    throw error;
  });
  try {
    await pair.exchange(count); // warms up
    await pair.tcp(count);
    await memory.exchange(SHARED_STEPS);
    for (let round = 0; round < ROUNDS_FACTOR * rounds; round++) {
      const [mine, rival] = [await pair.exchange(count), await pair.tcp(count)];
      samples.exchange.push(...mine);
      samples.tcp.push(...rival);
      samples.shm.push(...(await memory.exchange(SHARED_STEPS)));
      pairs.push({ value: median(mine), rival: median(rival) });
    }
  } finally {
    pair.stop();
    memory.stop();
  }
  const name = `exchange.${label}`;
  const trip = `round trip of ${label} between two engines over gRPC on loopback, spin ${spinUs} us`;
  const bare = "the same bytes to and fro over bare TCP in Node";
  const shared = `round trip of ${label} between two engines through shared memory, mean of the ${SHARED_TRIPS} of a step`;
  const unit = "us";
  const made = [
    figure({ name: `${name}.shm`, value: median(samples.shm), unit, measure: shared }, goal),
    figure({
      name: `${name}.shm.p99`,
      value: percentile(samples.shm, 0.99),
      unit,
      measure: shared,
    }),
    figure({ name: `${name}.median`, value: median(samples.exchange), unit, measure: trip }),
    figure({ name: `${name}.p99`, value: percentile(samples.exchange, 0.99), unit, measure: trip }),
    figure({ name: `${name}.tcp`, value: median(samples.tcp), unit, measure: `median of ${bare}` }),
    figure({
      name: `${name}.ratio`,
      value: pairedRatio(pairs),
      unit: "ratio",
      measure: `${trip}, to ${bare}, in turn with it (lower is better)`,
    }),
  ];
  log(made.map(({ name, value }) => `${name} ${value.toFixed(1)}`).join(", "));
  return made;
}

/** The exchange thread that polls against the one that sleeps, in turn. */
async function spinRatio(payload: Payload, { rounds, log }: BenchContext): Promise<Figure> {
  const { label, count } = payload;
  const pairs: { value: number; rival: number }[] = [];
  const [spins, sleeps] = [await Pair.join(payload, SPIN_US), await Pair.join(payload, 0)];
  try {
    for (let round = -1; round < ROUNDS_FACTOR * rounds; round++) {
      const [value, rival] = [await spins.exchange(count), await sleeps.exchange(count)];
      if (round >= 0) pairs.push({ value: median(value), rival: median(rival) });
    }
  } finally {
    spins.stop();
    sleeps.stop();
  }
  const made = figure({
    name: `exchange.${label}.spin_ratio`,
    value: pairedRatio(pairs),
    unit: "ratio",
    measure: `round trip with --exchange-spin-us ${SPIN_US}, to 0, in turn (below 1: polling wins)`,
  });
  log(`${made.name} ${made.value.toFixed(2)}`);
  return made;
}

export async function exchange(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const payload of PAYLOADS) figures.push(...(await roundTrips(payload, context)));
  for (const payload of PAYLOADS.slice(0, 1)) figures.push(await spinRatio(payload, context));
  return figures;
}
