/** Workers that encode tiles and die: they are named, and the group forms again and answers as before. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import type { PlacementFlags } from "@tessera/cli";
import { TesseraError } from "@tessera/client";
import { GroupState } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { essence, requestOf, serve, type Served } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { readGoldens } from "../harness/goldens.js";

const goldens = await readGoldens();
const pictured = goldens.find(({ images }) => images.length > 0) ?? assert.fail();
const request = await requestOf(pictured);
const endless = {
  ...(await requestOf(goldens.find(({ images }) => images.length === 0) ?? assert.fail())),
  maxTokens: 3500,
  minTokens: 3500,
};

function untilReady({ client }: Served, above: bigint) {
  return eventually(`a group stands above epoch ${above}`, async () => {
    const { state, epoch } = await client.getCluster();
    return state === GroupState.READY && epoch > above;
  });
}

async function failureOf(work: Promise<unknown>): Promise<TesseraError> {
  try {
    await work;
  } catch (error) {
    return TesseraError.from(error);
  }
  return assert.fail("it did not fail");
}

/** A stream of text; resolves when its first text has come, `ended` when it has failed. */
async function streaming({ client }: Served): Promise<{ ended: Promise<TesseraError> }> {
  let started: () => void = () => undefined;
  const first = new Promise<void>((resolve) => (started = resolve));
  const read = async () => {
    for await (const { kind } of client.generate(endless)) if (kind.case === "delta") started();
  };
  const ended = failureOf(read());
  await Promise.race([first, ended.then((error) => assert.fail(error.message))]);
  return { ended };
}

const isEncoder = { workers: 1, flags: { visionWorkers: 2 }, victim: 2 };
const isPart = { workers: 2, flags: { vision: "tensor" as const }, victim: 1 };

async function withCluster(
  { workers, flags, victim }: { workers: number; flags: Partial<PlacementFlags>; victim: number },
  work: (served: Served, kill: (signal: NodeJS.Signals) => void) => Promise<void>,
): Promise<void> {
  const served = await serve(workers, { flags });
  const pid = served.cluster.workerPids()[victim] ?? assert.fail();
  const before = essence(await served.client.generateOnce(request));
  try {
    await work(served, (signal) => process.kill(pid, signal));
    await untilReady(served, 1n);
    assert.deepEqual(essence(await served.client.generateOnce(request)), before);
  } finally {
    await served.stop();
  }
}

test("kill -9 of an idle encoder while text is streamed: the stream ends naming it", () =>
  withCluster(isEncoder, async (served, kill) => {
    const { ended } = await streaming(served);
    kill("SIGKILL");
    const { grpcStatus, message } = await ended;
    assert.equal(grpcStatus, status.UNAVAILABLE, message);
    assert.match(message, /rank 2/);
  }));

test("kill -9 of an encoder while nothing runs: not ready, then formed again", () =>
  withCluster(isEncoder, async (served, kill) => {
    kill("SIGKILL");
    await eventually("the loss is noticed", async () => {
      const { state, epoch } = await served.client.getCluster();
      return state === GroupState.LOST || epoch > 1n;
    });
  }));

for (const [name, cluster] of [
  ["an encoder", isEncoder],
  ["one of two that encode together", isPart],
] as const)
  test(`kill -9 of ${name} while tiles are encoded: the waiting request ends naming it`, () =>
    withCluster(cluster, async (served, kill) => {
      // A picture that was not seen yet is not served from the workers' embeddings.
      const other = goldens.findLast(({ images }) => images.length > 0) ?? assert.fail();
      kill("SIGSTOP");
      // Until one of its threads has taken the signal the others run on.
      await eventually("the worker is stopped", async () => {
        const pid = served.cluster.workerPids()[cluster.victim] ?? assert.fail();
        return /\) T /.test(await readFile(`/proc/${pid}/stat`, "utf8"));
      });
      const failed = failureOf(served.client.generateOnce(await requestOf(other)));
      await eventually("the request waits for its tiles", async () => {
        const { load = assert.fail() } = await served.client.getCluster();
        return load.waitingRequests > 0 && load.embeddings > 0;
      });
      kill("SIGKILL");
      const { grpcStatus, message } = await failed;
      assert.equal(grpcStatus, status.UNAVAILABLE, message);
      assert.match(message, new RegExp(`rank ${cluster.victim}`));
    }));
