/** One of the two processes of the exchange benchmark: a rank's engine and exchange thread, and an end of a socket. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { openEngine, type Engine } from "@tessera/native/engine";
import { Exchange } from "@tessera/shard-worker/exchange";
import type { FromPeer, ToPeer } from "./exchange-messages.js";
import {
  DEADLINE_MS,
  PLACEMENT,
  roundTripProgram,
  roundTripStep,
  writeZeros,
} from "./round-trip-program.js";
import { TcpEcho, TcpThrower } from "./tcp-rival.js";

const EPOCH = 1n;

class Peer {
  private engine: Engine | undefined;
  private thrower: TcpThrower | undefined;
  private step = 0n;
  private trips = 1;
  private exchange: Exchange | undefined;

  private constructor(private readonly echo: TcpEcho) {}

  static async start(): Promise<{ peer: Peer; said: FromPeer }> {
    const peer = new Peer(await TcpEcho.listen());
    const onLost = (epoch: bigint, rank: number) => peer.engine?.endEpoch(epoch, rank);
    peer.exchange = await Exchange.start({ host: "127.0.0.1" }, { onLost });
    const { port: exchangePort } = peer.exchange;
    return { peer, said: { kind: "started", exchangePort, tcpPort: peer.echo.port } };
  }

  async join(message: Extract<ToPeer, { kind: "join" }>): Promise<void> {
    const { rank, bytes, spinUs, exchange, tcpPort, transport, trips } = message;
    this.trips = trips;
    const cores = availableParallelism();
    const shared = { dir: "/dev/shm", required: true, threads: 1, cores };
    const program = roundTripProgram(bytes, { rank, trips });
    const folder = await mkdtemp(join(tmpdir(), "tessera-bench-"));
    const tensors = await writeZeros(join(folder, "zeros"), bytes);
    this.engine = await openEngine({ ...program, tensors, threads: 1 }, () => undefined);
    await rm(folder, { recursive: true });
    await this.engine.beginEpoch(EPOCH, PLACEMENT);
    await this.exchange?.join({
      epoch: EPOCH,
      rank,
      peers: exchange,
      size: exchange.length,
      planHash: `round trip of ${bytes}`,
      handle: this.engine.handle,
      deadlineMs: DEADLINE_MS,
      spinUs,
      sharing: transport === "shm" ? shared : undefined,
    });
    this.echo.setSize(bytes);
    if (rank === 0) this.thrower = await TcpThrower.connect(tcpPort, bytes);
  }

  /** All steps are given to the engine at once: it runs them back to back, and the peers keep in step by themselves. */
  async roundTrips(count: number): Promise<number[]> {
    const { engine } = this;
    assert(engine, "join first");
    const steps = Array.from({ length: count }, () =>
      engine.step(roundTripStep(EPOCH, ++this.step)),
    );
    const outcomes = await Promise.all(steps);
    return outcomes.map(({ computeNs, waitNs }) => Number(computeNs + waitNs) / 1e3 / this.trips);
  }

  throw(count: number): Promise<number[]> {
    assert(this.thrower, "join first, and only rank 0 throws");
    return this.thrower.throw(count);
  }
}

async function answer(peer: Peer, message: Exclude<ToPeer, { kind: "start" }>): Promise<FromPeer> {
  switch (message.kind) {
    case "join":
      await peer.join(message);
      return { kind: "joined" };
    case "exchange":
      return { kind: "times", us: await peer.roundTrips(message.count) };
    case "tcp":
      return { kind: "times", us: await peer.throw(message.count) };
  }
}

let peer: Peer | undefined;
async function take(message: ToPeer): Promise<FromPeer> {
  if (message.kind === "start") {
    const started = await Peer.start();
    peer = started.peer;
    return started.said;
  }
  assert(peer, "start first");
  return answer(peer, message);
}

process.on("message", (message: ToPeer) => void take(message).then((said) => process.send?.(said)));
process.on("disconnect", () => process.exit(0));
