/** grpc.health.v1 and the HTTP probes of both processes, through a loss and a drain. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { startCoordinator } from "@tessera/coordinator";
import { startWorker } from "@tessera/shard-worker";
import { FLAGS, serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { get } from "../harness/http.js";
import { root } from "../harness/paths.js";
import { checkHealth, watchHealth } from "../harness/stranger.js";

const INFERENCE = "tessera.v1.Inference";
const SHARD = "tessera.shard.v1.Shard";
const PROBES = ["/livez", "/readyz", "/startupz"];

const { cluster, client, stop } = await serve(2, { healthPort: 0 });
after(stop);
const front = cluster.address;

const statuses = (address: string | undefined) =>
  Promise.all(PROBES.map(async (path) => (await get(address, path)).status));

test("a ready group: Check says SERVING for both names on both processes, and the probes 200", async () => {
  const worker = (await client.getCluster()).ranks[0]?.address ?? "";
  assert.equal(await checkHealth(front, ""), "SERVING");
  assert.equal(await checkHealth(front, INFERENCE), "SERVING");
  assert.equal(await checkHealth(worker, ""), "SERVING");
  assert.equal(await checkHealth(worker, SHARD), "SERVING");
  await assert.rejects(checkHealth(front, "tessera.v1.Nothing"), /NOT_FOUND/);
  assert.deepEqual(await statuses(cluster.health), [200, 200, 200]);
  for (const address of cluster.workerHealth())
    assert.deepEqual(await statuses(address), [200, 200, 200]);
  assert.equal((await get(cluster.health, "/nothing")).status, 404);
});

test("kill -9 of a worker: Watch says NOT_SERVING and /readyz 503, then SERVING and 200 again", async () => {
  const watch = watchHealth(front, INFERENCE);
  after(watch.stop);
  await eventually("the first status", () => watch.seen.length > 0);
  const [, pid] = cluster.workerPids();
  process.kill(pid ?? 0, "SIGKILL");
  const survivor = cluster.workerHealth()[0];
  const notReady = (address: string | undefined) =>
    eventually("503", async () => (await get(address, "/readyz")).status === 503);
  await Promise.all([notReady(cluster.health), notReady(survivor)]);
  assert.deepEqual((await statuses(cluster.health)).toSpliced(1, 1), [200, 200]);
  await eventually("SERVING again", () => watch.seen.length >= 3);
  assert.deepEqual(watch.seen, ["SERVING", "NOT_SERVING", "SERVING"]);
  assert.deepEqual(await statuses(cluster.health), [200, 200, 200]);
  assert.deepEqual(await statuses(survivor), [200, 200, 200]);
});

test("a drain: Watch says NOT_SERVING and /readyz 503, while the process is alive", async () => {
  const watch = watchHealth(front, INFERENCE);
  after(watch.stop);
  await eventually("the first status", () => watch.seen.length > 0);
  await client.drain();
  await eventually("NOT_SERVING", () => watch.seen.length === 2);
  assert.deepEqual(watch.seen, ["SERVING", "NOT_SERVING"]);
  assert.deepEqual(await statuses(cluster.health), [200, 503, 200]);
  assert.equal(await checkHealth(front, ""), "SERVING");
});

const common = {
  modelDir: root("models/nvlm-d-tiny"),
  listen: "127.0.0.1:0",
  healthListen: "127.0.0.1:0",
  reflection: false,
  logLevel: "fatal",
};

test("before the first group: alive, neither started nor ready, on both processes", async () => {
  const worker = await startWorker({ ...common, threads: 1 });
  after(() => worker.close());
  assert.deepEqual(await statuses(worker.healthAddress), [200, 503, 503]);
  assert.equal(await checkHealth(worker.address, SHARD), "NOT_SERVING");
  const { kv: kvType, wire: wireType, chatTemplate, stepDeadlineMs } = FLAGS;
  const placement = { kvType, wireType, chatTemplate, stepDeadlineMs, maxRequests: 4 };
  const nobody = ["127.0.0.1:1"];
  const coordinator = await startCoordinator({ ...common, ...placement, workers: nobody });
  after(() => coordinator.close());
  assert.deepEqual(await statuses(coordinator.healthAddress), [200, 503, 503]);
  assert.equal(await checkHealth(coordinator.address, INFERENCE), "NOT_SERVING");
  assert.equal(await checkHealth(coordinator.address, ""), "SERVING");
});

test("a health port that is taken stops the start and is named", async () => {
  const healthListen = cluster.health ?? "";
  await assert.rejects(
    startWorker({ ...common, healthListen, threads: 1 }),
    /health-listen.*EADDRINUSE/,
  );
});
