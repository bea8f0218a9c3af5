/** Batches on disk: how many a tenant may have, and what is left of them. Their lines are answered by the tests. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ServeError } from "@tessera/proto";
import type { Caller } from "../../access/caller.js";
import { DataFolder, tenantFolder } from "../storage/data-folder.js";
import { FileStore } from "../storage/file-store.js";
import type { RunOptions } from "./batch-run.js";
import { Batches, type BatchLimits } from "./batches.js";
import { ended, type BatchRecord } from "./record.js";

const DEADLINE_MS = 10_000;
const endpoint = "/v1/completions";
const callerOf = (tenant: string): Caller => ({
  tenant,
  admin: false,
  policy: { weight: 1, limits: {} },
});

type Answer = RunOptions["answer"];
const answered: Answer = () => Promise.resolve({ status: 200, body: {} });
const untilStopped: Answer = (_record, _entry, signal) =>
  new Promise((_, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }),
  );

class World {
  private constructor(
    private readonly dir: string,
    readonly batches: Batches,
    readonly files: FileStore,
    private readonly reopen: (answer: Answer) => Promise<Batches>,
  ) {}

  static async open(
    t: TestContext,
    answer: Answer,
    limits: Partial<BatchLimits> = {},
    fileLimits = {},
  ) {
    const dir = mkdtempSync(join(tmpdir(), "tessera-batches-"));
    const data = await DataFolder.open(dir);
    const files = await FileStore.open(data, fileLimits);
    const opened: Batches[] = [];
    const reopen = async (own: Answer) => {
      const options = { files, concurrency: 2, maxLineBytes: 1000, failed: () => undefined };
      const batches = await Batches.open(data, { ...options, answer: own }, limits);
      opened.push(batches);
      return batches;
    };
    t.after(async () => {
      for (const batches of opened) await batches.close();
      await data.close();
      rmSync(dir, { recursive: true, force: true });
    });
    return new World(dir, await reopen(answer), files, reopen);
  }

  async input(tenant: string): Promise<string> {
    const line = { custom_id: "a", method: "POST", url: endpoint, body: { prompt: "a" } };
    const source = (async function* () {
      yield await Promise.resolve(Buffer.from(JSON.stringify(line)));
    })();
    const upload = await this.files.upload(tenant, source);
    return (await upload.keep({ filename: "in.jsonl", purpose: "batch" })).id;
  }

  create(tenant: string, inputFileId: string): Promise<BatchRecord> {
    return this.batches.create(callerOf(tenant), { endpoint, inputFileId, metadata: null });
  }

  folder(tenant: string, id: string): string {
    return join(this.dir, "tenants", tenantFolder(tenant), "batches", id);
  }

  async restart(answer: Answer): Promise<Batches> {
    await this.batches.close();
    return this.reopen(answer);
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const lateMs = performance.now() + DEADLINE_MS;
  while (!holds()) {
    assert.ok(performance.now() < lateMs, `in time: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("batches: a tenant has so many open and no more, also when they are asked for at once", async (t) => {
  const world = await World.open(t, untilStopped, { openBatches: 3 });
  const input = await world.input("a");
  const made = await Promise.allSettled(Array.from({ length: 8 }, () => world.create("a", input)));
  const refused = made.flatMap((one) => (one.status === "rejected" ? [one.reason as object] : []));
  assert.equal(refused.length, 5);
  for (const error of refused) assert.equal(ServeError.from(error).code, "OVERLOADED");
  assert.equal(world.batches.all("a").length, 3);
  await world.create("b", await world.input("b"));
  const [first] = world.batches.all("a");
  await world.batches.cancel("a", first?.id ?? "");
  await until("one has ended", () => world.batches.all("a").some(ended));
  await world.create("a", input);
});

test("batches: of those that have ended a tenant keeps so many, the oldest are forgotten with their folders", async (t) => {
  const world = await World.open(t, answered, { keptBatches: 2 });
  const input = await world.input("a");
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) {
    const record = await world.create("a", input);
    ids.push(record.id);
    await until("it has ended", () => ended(record));
    assert.equal(record.status, "completed");
  }
  const [oldest = "", ...kept] = ids;
  assert.deepEqual(
    world.batches.all("a").map(({ id }) => id),
    kept,
  );
  assert.throws(() => world.batches.get("a", oldest), { code: "REQUEST_NOT_FOUND" });
  assert.ok(!existsSync(world.folder("a", oldest)));
});

test("batches: a tenant whose files are at their limit makes none until it deletes some", async (t) => {
  const world = await World.open(t, answered, {}, { tenantFiles: 3 });
  const input = await world.input("a");
  const record = await world.create("a", input);
  await until("it has ended", () => ended(record));
  assert.equal(world.files.all("a").length, 2);
  await world.input("a");
  await assert.rejects(
    world.create("a", input),
    (error: unknown) => error instanceof ServeError && error.quota === "files",
  );
  await world.create("b", await world.input("b"));
  await world.files.remove("a", record.outputFileId ?? "");
  await world.create("a", input);
});

test("batches: another tenant's is not found, to be read or to be ended", async (t) => {
  const world = await World.open(t, untilStopped);
  const { id } = await world.create("a", await world.input("a"));
  assert.throws(() => world.batches.get("b", id), { code: "REQUEST_NOT_FOUND" });
  await assert.rejects(world.batches.cancel("b", id), { code: "REQUEST_NOT_FOUND" });
  assert.deepEqual(world.batches.all("b"), []);
  const input = await world.input("a");
  await assert.rejects(world.create("b", input), { code: "REQUEST_NOT_FOUND" });
});

test("batches: one that fails leaves its record alone on disk", async (t) => {
  const world = await World.open(t, () => Promise.reject(new Error("the disk is broken")));
  const record = await world.create("a", await world.input("a"));
  const folder = world.folder("a", record.id);
  await until("it has failed", () => record.status === "failed");
  await until("it is cleared", () => readdirSync(folder).length === 1);
  assert.deepEqual(readdirSync(folder), ["state.json"]);
  assert.equal(record.faults[0]?.code, "internal");
});

test("batches: what a crash left of one that has ended is removed at the next start", async (t) => {
  const world = await World.open(t, answered);
  const record = await world.create("a", await world.input("a"));
  await until("it has ended", () => ended(record));
  const folder = world.folder("a", record.id);
  await until("it is cleared", () => readdirSync(folder).length === 1);
  for (const name of ["input.jsonl", "output.jsonl", "error.jsonl", "state.json.part"])
    writeFileSync(join(folder, name), "x");
  const batches = await world.restart(answered);
  assert.deepEqual(readdirSync(folder), ["state.json"]);
  assert.deepEqual(batches.get("a", record.id), record);
});
