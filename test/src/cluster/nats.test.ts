/** Groups that find each other through a real nats-server. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { TesseraError, type GenerateInput, type TesseraClient } from "@tessera/client";
import { durationToMillis } from "@tessera/proto";
import type { ClusterEvent } from "@tessera/proto/gen/tessera/cluster/v1/cluster_pb.js";
import { FinishReason } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { NatsGroup } from "@tessera/proto/nats";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { copyModel } from "../harness/damage.js";
import { formed, HEARTBEAT_MS, NatsServer, SILENT_MS, startGroup, until } from "../harness/nats.js";

const goldens = await readGoldens();
const requests = await Promise.all(goldens.slice(0, 3).map(requestOf));
const [short] = requests;
const long = (tokens: number): GenerateInput => ({
  ...short,
  maxTokens: tokens,
  minTokens: tokens,
});

async function answers(client: TesseraClient) {
  const all = await Promise.all(requests.map((request) => client.generateOnce(request)));
  return all.map(essence);
}

const fixed = await serve(2);
const expected = await answers(fixed.client);
await fixed.stop();

const nats = await NatsServer.start();
after(() => nats.remove());
const group = await startGroup({ url: nats.url, group: "main", size: 2 });
after(() => group.stop());

const events: ClusterEvent[] = [];
const observer = await NatsGroup.connect(
  { url: nats.url, group: "main", name: "test", connectDeadlineMs: 5000 },
  {
    heartbeat: () => undefined,
    changed: () => undefined,
    problem: () => undefined,
    event: (event) => events.push(event),
  },
);
after(() => observer.close());

/** Resolves when no rank was heard for longer than what makes one silent. */
async function unheard(): Promise<void> {
  await until("no word of any rank", async () => {
    const { ranks } = await group.client.getCluster();
    const ages = ranks.map(({ lastHeard }) => durationToMillis(lastHeard ?? assert.fail()));
    return Math.min(...ages) > 1.5 * SILENT_MS ? true : undefined;
  });
}

/** Resolves when every rank was heard within the last two intervals. */
async function heardAgain(): Promise<void> {
  await until("a word of every rank", async () => {
    const { ranks } = await group.client.getCluster();
    const ages = ranks.map(({ lastHeard }) => durationToMillis(lastHeard ?? assert.fail()));
    return Math.max(...ages) < 2 * HEARTBEAT_MS ? true : undefined;
  });
}

test("two workers found through NATS answer as a fixed list of workers does", async () => {
  const { epoch, ranks } = await group.formed();
  assert.deepEqual([epoch, ranks.length], [1n, 2]);
  assert.deepEqual(await answers(group.client), expected);
});

test("two groups on one NATS do not see each other", async () => {
  const other = await startGroup({ url: nats.url, group: "other", size: 1 });
  try {
    const theirs = (await other.formed()).ranks.map(({ workerId }) => workerId);
    const ours = (await group.formed()).ranks.map(({ workerId }) => workerId);
    assert.equal(new Set([...theirs, ...ours]).size, 3);
    assert.deepEqual(await answers(other.client), expected);
  } finally {
    await other.stop();
  }
  assert.equal((await group.formed()).epoch, 1n);
});

test("a vision worker has a lease as any rank; when it dies a spare takes it", async () => {
  const apart = await startGroup({ url: nats.url, group: "apart", size: 1, visionWorkers: 1 });
  try {
    const { epoch, ranks, placement } = await apart.formed();
    assert.deepEqual([ranks.length, placement?.encoderRanks], [2, [1]]);
    assert.deepEqual(await answers(apart.client), expected);
    await apart.addWorker();
    (await apart.workerOf(1)).signal("SIGKILL");
    await apart.formed(epoch);
    assert.deepEqual(await answers(apart.client), expected);
  } finally {
    await apart.stop();
  }
});

test("a worker with another model is refused by name and stays a spare", async () => {
  const copy = await copyModel();
  try {
    const config = join(copy.dir, "config.json");
    const facts = JSON.parse(await readFile(config, "utf8")) as Record<string, unknown>;
    await writeFile(config, JSON.stringify({ ...facts, another: true }));
    const stranger = await group.addWorker({ model: copy.dir });
    const refusal =
      /group main has model [0-9a-f]{12}, this worker [0-9a-f]{12}: it takes no lease/;
    await until("the worker's word", () => refusal.exec(stranger.log) ?? undefined);
    const word = /worker [0-9a-f-]{36} \(127.0.0.1:\d+\) has model [0-9a-f]{12}, the coordinator/;
    await until("the coordinator's word", () => word.exec(group.coordinator.log) ?? undefined);
    await stranger.stop();
    assert.equal((await group.formed()).epoch, 1n);
  } finally {
    await copy.remove();
  }
});

test("a cancel on NATS ends the request of that id and tenant, and no other", async () => {
  const reasons: FinishReason[] = [];
  let deltas = 0;
  for await (const { kind } of group.client.generate({ ...long(3000), requestId: "to-cancel" })) {
    if (kind.case === "delta" && ++deltas === 1) {
      observer.cancel({ requestId: "another", tenant: "default" });
      observer.cancel({ requestId: "to-cancel", tenant: "stranger" });
    }
    if (kind.case === "delta" && deltas === 20)
      observer.cancel({ requestId: "to-cancel", tenant: "default" });
    if (kind.case === "finished") reasons.push(kind.value.reason);
  }
  assert.deepEqual(reasons, [FinishReason.ABORTED]);
  assert.ok(deltas >= 20 && deltas < 3000, `${deltas}`);
});

test("kill -9 of a worker: a spare takes its lease, a higher epoch gives the same answers", async () => {
  const spare = await group.addWorker();
  const { epoch } = await group.formed();
  const lost = await group.workerOf(1);
  lost.signal("SIGKILL");
  const { ranks } = await group.formed(epoch);
  assert.equal(ranks[1]?.address, spare.address);
  assert.deepEqual(await answers(group.client), expected);
  const said = await until("the new epoch's event", () => {
    const kinds = events.map((event) => `${event.kind.case} ${event.epoch}`);
    return kinds.includes(`epochFormed ${epoch + 1n}`) ? kinds : undefined;
  });
  assert.deepEqual(said.slice(-2), [`rankLost ${epoch}`, `epochFormed ${epoch + 1n}`]);
});

test("a worker that stands still is lost by its heartbeats; going on, it takes nothing back", async () => {
  const spare = await group.addWorker();
  const { epoch } = await group.formed();
  const still = await group.workerOf(0);
  still.signal("SIGSTOP");
  try {
    const { ranks } = await group.formed(epoch);
    assert.equal(ranks[0]?.address, spare.address);
    assert.match(group.coordinator.log, /rank 0 \([^)]*\): no heartbeat for \d+ ms, limit 1500 ms/);
  } finally {
    still.signal("SIGCONT");
  }
  await until("it sees its lease lost", () => /lease lost/.exec(still.log) ?? undefined);
  assert.deepEqual(await answers(group.client), expected);
  assert.equal((await group.formed()).epoch, epoch + 1n);
  await still.stop();
});

test("a nats-server that stands still makes nobody silent, neither then nor when it goes on", async () => {
  const { epoch } = await group.formed();
  nats.signal("SIGSTOP");
  try {
    await unheard();
    assert.deepEqual(await answers(group.client), expected);
    await unheard();
  } finally {
    nats.signal("SIGCONT");
  }
  await heardAgain();
  assert.equal((await group.formed()).epoch, epoch);
});

test("a worker that is stopped in order gives its lease to the spare at once", async () => {
  const spare = await group.addWorker();
  const { epoch } = await group.formed();
  const leaving = await group.workerOf(1);
  assert.equal(await leaving.stop(), 0);
  const { ranks } = await group.formed(epoch);
  assert.equal(ranks[1]?.address, spare.address);
  assert.ok(events.some(({ kind }) => kind.case === "drained"));
  assert.doesNotMatch(spare.log, /is silent/);
});

test("nats-server stops mid-stream: the stream ends whole, new requests are served; it comes back with everything", async () => {
  const { epoch } = await group.formed();
  const texts: string[] = [];
  for await (const { kind } of group.client.generate(long(400))) {
    if (kind.case !== "delta") continue;
    texts.push(kind.value.text);
    if (texts.length === 5) await nats.stop();
  }
  const whole = await group.client.generateOnce(long(400));
  assert.equal(texts.join(""), whole.choices[0]?.text);
  await unheard();
  assert.deepEqual(await answers(group.client), expected);
  await unheard();
  assert.equal((await group.formed()).epoch, epoch);
  await nats.restart();
  await heardAgain();
  assert.equal((await group.formed()).epoch, epoch);
  (await group.workerOf(0)).signal("SIGKILL");
  const fresh = await group.addWorker();
  const { ranks } = await group.formed(epoch);
  assert.equal(ranks[0]?.address, fresh.address);
  assert.deepEqual(await answers(group.client), expected);
});

test("nats-server comes back without its store: leases and group are said again, running work goes on", async () => {
  const { epoch } = await group.formed();
  await nats.stop();
  await nats.dropStore();
  await nats.restart();
  await heardAgain();
  const table = await until("the bucket is whole", () => {
    const { spec, leases } = observer.table;
    const held = [0, 1].every((rank) => leases.get(rank)?.value !== undefined);
    return held && spec.value !== undefined ? observer.table : undefined;
  });
  assert.equal(table.spec.value?.rankCount, 2);
  assert.equal((await group.formed()).epoch, epoch);
  (await group.workerOf(1)).signal("SIGKILL");
  const fresh = await group.addWorker();
  const { ranks } = await group.formed(epoch);
  assert.ok(ranks.some(({ address }) => address === fresh.address));
  assert.deepEqual(await answers(group.client), expected);
});

test("a second coordinator stands by, and leads when the first falls silent", async () => {
  const { epoch } = await group.formed();
  const standby = await group.addCoordinator();
  await until(
    "its word",
    () => /coordinator [0-9a-f-]{36} leads it/.exec(standby.coordinator.log) ?? undefined,
  );
  const refusal = await standby.client
    .generateOnce(short ?? {})
    .catch((error: unknown) => TesseraError.from(error));
  assert.equal(refusal instanceof TesseraError && refusal.code, "NOT_READY");
  group.coordinator.signal("SIGKILL");
  assert.ok((await formed(standby.client)).epoch > epoch);
  assert.deepEqual(await answers(standby.client), expected);
});

test("a worker restarted at its address takes its rank again without waiting for silence", async () => {
  const slow = await startGroup({ url: nats.url, group: "slow", size: 1, heartbeatMs: 10_000 });
  try {
    const { epoch } = await slow.formed();
    const [first] = slow.workers;
    first?.signal("SIGKILL");
    await slow.addWorker({ listen: first?.address ?? "" });
    const { ranks } = await slow.formed(epoch);
    assert.equal(ranks[0]?.address, first?.address);
    assert.deepEqual(await answers(slow.client), expected);
  } finally {
    await slow.stop();
  }
});

test("a worker is reached under the address that it advertises", async () => {
  const named = await startGroup({ url: nats.url, group: "named", size: 1 });
  try {
    const { epoch } = await named.formed();
    const worker = await named.addWorker({ listen: "0.0.0.0:0", advertise: "localhost:0" });
    (await named.workerOf(0)).signal("SIGKILL");
    const { ranks } = await named.formed(epoch);
    assert.equal(ranks[0]?.address, worker.address.replace("0.0.0.0", "localhost"));
    assert.deepEqual(await answers(named.client), expected);
  } finally {
    await named.stop();
  }
});
