/** Files of tenants on disk: what a tenant may keep, and what is left when something fails. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ServeError } from "@tessera/proto";
import { DataFolder, tenantFolder } from "./data-folder.js";
import { FileStore, type FileLimits } from "./file-store.js";

async function open(t: TestContext, limits: Partial<FileLimits> = {}) {
  const dir = mkdtempSync(join(tmpdir(), "tessera-store-"));
  const data = await DataFolder.open(dir);
  t.after(async () => {
    await data.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const store = await FileStore.open(data, limits);
  const folder = (tenant: string) => join(dir, "tenants", tenantFolder(tenant), "files");
  return { store, folder, again: () => FileStore.open(data, limits) };
}

async function* bytes(count: number, before?: Promise<void>): AsyncGenerator<Buffer> {
  await before;
  yield Buffer.alloc(count, "x");
}

const OF = { filename: "a.jsonl", purpose: "batch" } as const;
const add = async (store: FileStore, tenant: string, count: number) =>
  (await store.upload(tenant, bytes(count))).keep(OF);

function overloaded(quota: string) {
  return (error: unknown) =>
    error instanceof ServeError && error.code === "OVERLOADED" && error.quota === quota;
}

test("files: a tenant keeps so many and no more; another is not touched, and a deleted one makes room", async (t) => {
  const { store } = await open(t, { tenantFiles: 2 });
  const { id } = await add(store, "a", 1);
  await add(store, "a", 1);
  await assert.rejects(add(store, "a", 1), overloaded("files"));
  await add(store, "b", 1);
  assert.throws(() => store.get("b", id), { code: "REQUEST_NOT_FOUND" });
  await assert.rejects(store.remove("b", id), { code: "REQUEST_NOT_FOUND" });
  await store.remove("a", id);
  await add(store, "a", 1);
  assert.deepEqual([store.all("a").length, store.all("b").length], [2, 1]);
});

test("files: a tenant keeps so many bytes and no more, and what is too much is not left on disk", async (t) => {
  const { store, folder } = await open(t, { tenantBytes: 10, fileBytes: 8 });
  await add(store, "a", 6);
  const upload = await store.upload("a", bytes(5));
  await assert.rejects(upload.keep(OF), overloaded("file bytes"));
  await upload.drop();
  await assert.rejects(add(store, "a", 9), { code: "MESSAGE_TOO_LARGE" });
  assert.equal(readdirSync(folder("a")).length, 2);
  await add(store, "a", 4);
  await add(store, "b", 8);
});

test("files: a tenant sends so many at once and no more", async (t) => {
  const { store } = await open(t, { uploads: 2 });
  let go: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  const running = [1, 2].map(() => store.upload("a", bytes(1, gate)));
  await assert.rejects(store.upload("a", bytes(1)), overloaded("uploads"));
  await store.upload("b", bytes(1));
  go();
  await Promise.all(running);
  await store.upload("a", bytes(1));
});

test("files: one that cannot be kept leaves nothing on disk", async (t) => {
  const { store, folder } = await open(t);
  const upload = await store.upload("a", bytes(5));
  const [part = ""] = readdirSync(folder("a"));
  // Where its facts would be written.
  const blocked = part.replace(/\.part$/, ".json.part");
  mkdirSync(join(folder("a"), blocked));
  await assert.rejects(upload.keep(OF), { code: "EISDIR" });
  await upload.drop();
  assert.deepEqual(readdirSync(folder("a")), [blocked]);
  assert.deepEqual(store.all("a"), []);
});

test("files: pieces that a crash left are removed at the next start, whole files stay", async (t) => {
  const { store, folder, again } = await open(t);
  const { id } = await add(store, "a", 3);
  for (const name of ["file-1.part", "file-2.data", "file-3.json.part"])
    writeFileSync(join(folder("a"), name), "x");
  assert.deepEqual((await again()).all("a"), store.all("a"));
  assert.deepEqual(readdirSync(folder("a")).sort(), [`${id}.data`, `${id}.json`]);
});
