/** Two ranks of one process that find out whether they share memory. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import { JoinRequestSchema } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import type { PairTransport } from "./exchange-messages.js";
import { WorkerMetrics } from "./metrics.js";
import { model, placementOf } from "./placement.fixture.js";
import { placementHash, RankState } from "./rank.js";
import { SharedPairs } from "./shared-pairs.js";
import type { Transport } from "./transport.js";

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "tessera-shared-"));
  after(() => rm(path, { recursive: true }));
  return path;
}

interface Way {
  transport: Transport;
  sharedDir: string;
}

interface Member {
  state: RankState;
  metrics: WorkerMetrics;
  told: PairTransport[][];
}

async function open(ways: Way[]): Promise<Member[]> {
  const members = await Promise.all(
    ways.map(async (way) => {
      const metrics = new WorkerMetrics();
      const at = { host: "127.0.0.1" };
      const state = await RankState.open(model, 1, at, metrics, () => undefined);
      const told: PairTransport[][] = [];
      Object.assign(state, way);
      state.onTransports = (pairs) => told.push(pairs);
      return { state, metrics, told };
    }),
  );
  after(() => Promise.all(members.map(({ state }) => state.close())));
  return members;
}

const placement = placementOf();

function joinAll(members: Member[], epoch: bigint) {
  const peers = members.map(({ state }) => `127.0.0.1:${state.exchange.port}`);
  return Promise.allSettled(
    members.map(({ state }, rank) => {
      const planHash = placementHash(state.modelHash, members.length, placement);
      const request = create(JoinRequestSchema, { epoch, rank, peers, placement, planHash });
      return state.join(request, () => undefined);
    }),
  );
}

async function joined(ways: Way[]): Promise<Member[]> {
  const members = await open(ways);
  for (const { status } of await joinAll(members, 1n)) assert.equal(status, "fulfilled");
  return members;
}

async function sharedPeers({ metrics }: Member): Promise<number | undefined> {
  const { values } = await metrics.sharedPeers.get();
  return values[0]?.value;
}

test("ranks with one folder share memory, leave no file there, and do it again in the next epoch", async () => {
  const sharedDir = await folder();
  const members = await joined([
    { transport: "auto", sharedDir },
    { transport: "shm", sharedDir },
  ]);
  const [first, second] = members;
  const shared = (rank: number) => [[{ rank, transport: "shm", why: "" }]];
  assert.deepEqual([first?.told, second?.told], [shared(1), shared(0)]);
  assert.deepEqual(await readdir(sharedDir), []);
  assert.deepEqual(await Promise.all(members.map(sharedPeers)), [1, 1]);
  for (const { status } of await joinAll(members, 2n)) assert.equal(status, "fulfilled");
  assert.deepEqual([first?.told[1], second?.told[1]], [shared(1)[0], shared(0)[0]]);
  first?.state.fence(3n);
  assert.equal(first && (await sharedPeers(first)), 0);
});

test("ranks with folders of their own go by gRPC and say why", async () => {
  const [here, there] = [await folder(), await folder()];
  const members = await joined([
    { transport: "auto", sharedDir: here },
    { transport: "auto", sharedDir: there },
  ]);
  for (const { told } of members) {
    assert.equal(told[0]?.[0]?.transport, "grpc");
    assert.match(told[0][0].why, /tessera-[0-9a-f]{32} cannot be opened: No such file/);
  }
  assert.deepEqual(await Promise.all(members.map(sharedPeers)), [0, 0]);
  assert.deepEqual([await readdir(here), await readdir(there)], [[], []]);
});

test("a folder that is not there means gRPC, and each side knows whose it is", async () => {
  const sharedDir = await folder();
  const [without, beside] = await joined([
    { transport: "auto", sharedDir: join(sharedDir, "none") },
    { transport: "auto", sharedDir },
  ]);
  assert.match(without?.told[0]?.[0]?.why ?? "", /none.*cannot be made: No such file/);
  assert.equal(beside?.told[0]?.[0]?.why, "rank 0 has no shared file");
});

test("of four ranks one that is told to use gRPC does, the others share memory", async () => {
  const sharedDir = await folder();
  const ways: Transport[] = ["auto", "grpc", "auto", "auto"];
  const pairs = ways.map(
    (transport, rank) =>
      new SharedPairs({
        epoch: 1n,
        rank,
        size: 4,
        sharing:
          transport === "grpc"
            ? undefined
            : { dir: sharedDir, required: false, threads: 1, cores: 1 },
      }),
  );
  for (const [rank, one] of pairs.entries())
    for (const [peer, other] of pairs.entries())
      if (peer !== rank) one.hear(peer, other.judge(rank, one.read(peer, other.sharedFile)));
  const ends = pairs.map((one) => one.transports().map(({ transport }) => transport));
  assert.deepEqual(ends, [
    ["grpc", "shm", "shm"],
    ["grpc", "grpc", "grpc"],
    ["shm", "grpc", "shm"],
    ["shm", "grpc", "shm"],
  ]);
  assert.ok(pairs.every(({ settled }) => settled));
  assert.equal(pairs[1]?.transports()[0]?.why, "rank 1 is told to use gRPC");
  for (const one of pairs) one.close();
  assert.deepEqual(await readdir(sharedDir), []);
});

test("a nonce that is another rank's, cut or missing proves nothing, and the pair goes by gRPC", async () => {
  const dir = await folder();
  const sharing = { dir, required: false, threads: 1, cores: 1 };
  const [one, two, three] = [0, 1, 2].map(
    (rank) => new SharedPairs({ epoch: 1n, rank, size: 4, sharing }),
  );
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  const foreign = three.read(0, one.sharedFile);
  const own = two.read(0, one.sharedFile);
  for (const proof of [foreign, own.subarray(1), new Uint8Array(0)])
    assert.equal(one.judge(1, proof), false);
  assert.equal(one.knows(1), false);
  one.hear(1, true);
  assert.deepEqual(one.transports()[0], {
    rank: 1,
    transport: "grpc",
    why: "rank 1 did not read this rank's shared file",
  });
  assert.equal(one.judge(1, own), true);
  for (const pairs of [one, two, three]) pairs.close();
});

test("transport shm: a join without shared memory is refused naming the pair and why", async () => {
  const sharedDir = await folder();
  const members = await open([
    { transport: "shm", sharedDir },
    { transport: "grpc", sharedDir },
  ]);
  const [refused] = await joinAll(members, 1n);
  assert.ok(refused?.status === "rejected");
  const { code, message } = ServeError.from(refused.reason);
  assert.equal(code, "CONFIGURATION");
  assert.equal(message, "transport shm: ranks 0 and 1 share no memory: rank 1 has no shared file");
  assert.deepEqual(await readdir(sharedDir), []);
});
