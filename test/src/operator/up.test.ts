/** tessera up: refusals, the address it prints, and its end. */
import assert from "node:assert/strict";
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { test } from "node:test";
import { TesseraClient, TesseraError } from "@tessera/client";
import { GroupState } from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import { tessera } from "../harness/command.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";

const MODEL = ["--model", root("models/nvlm-d-tiny")];

for (const [workers, next] of [
  [0, 1],
  [3, 2],
  [16, 8],
] as const)
  test(`up --workers ${workers}: refused with the next possible, ${next}`, async () => {
    const { code, stdout, stderr } = await tessera(["up", ...MODEL, "--workers", String(workers)]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, new RegExp(`size ${workers}: .*possible: 1, 2, 4, 8; next: ${next}\n$`));
  });

interface Up {
  child: ChildProcessByStdio<null, Readable, Readable>;
  client: TesseraClient;
  stderr: () => string;
}

/** Runs `tessera up` with two workers until `work` is done and it has ended; resolves to its exit code. */
async function withUp(work: (up: Up) => Promise<void>): Promise<number | null> {
  const args = [
    root("cli/bin/tessera.js"),
    "up",
    ...MODEL,
    "--workers",
    "2",
    "--port",
    "0",
    "--no-http",
  ];
  const child = spawn(process.execPath, [...args, "--threads", "1"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const deadline = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const closed = once(child, "close") as Promise<[number | null]>;
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const address = /^serving on (127\.0\.0\.1:\d+)$/.exec(line)?.[1] ?? assert.fail(line);
    const client = new TesseraClient({ addresses: [address], deadlineMs: 60_000 });
    await work({ child, client, stderr: () => stderr }).finally(() => client.close());
    return (await closed)[0];
  } catch (error) {
    throw new Error(`tessera up said: ${stderr}`, { cause: error });
  } finally {
    child.kill("SIGKILL");
    clearTimeout(deadline);
  }
}

const request = { tokenIds: [65, 66, 67], minTokens: 2000, maxTokens: 2000, returnTokenIds: true };

test("up: Ctrl-C drains: what runs is answered whole, what is new is refused, then it ends", async () => {
  const code = await withUp(async ({ child, client, stderr }) => {
    const stream = client.generate(request);
    await stream.next();
    child.kill("SIGINT");
    await eventually(
      "draining",
      async () => (await client.getCluster()).state === GroupState.DRAINING,
    );
    await assert.rejects(client.generateOnce(request), (error: unknown) => {
      assert.equal(TesseraError.from(error).code, "DRAINING");
      return true;
    });
    let tokens = 0;
    for await (const { kind } of stream)
      tokens += kind.case === "delta" ? kind.value.tokenIds.length : 0;
    assert.equal(tokens, 2000);
    assert.equal(stderr(), "draining; again: stops at once\n");
  });
  assert.equal(code, 0);
});

test("up: a second Ctrl-C stops at once", async () => {
  const code = await withUp(async ({ child, client }) => {
    const stream = client.generate({ ...request, minTokens: 4000, maxTokens: 4000 });
    await stream.next();
    child.kill("SIGINT");
    await eventually(
      "draining",
      async () => (await client.getCluster()).state === GroupState.DRAINING,
    );
    child.kill("SIGINT");
    const reasons: (number | string)[] = [];
    for await (const { kind } of stream)
      if (kind.case === "finished") reasons.push(kind.value.reason);
    assert.deepEqual(reasons, [4]);
  });
  assert.equal(code, 0);
});
