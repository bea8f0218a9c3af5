/** Files and batches are seen by their tenant only. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import OpenAI, { AuthenticationError, NotFoundError, toFile } from "openai";
import { eventually } from "../harness/eventually.js";
import { serveHttp } from "../harness/http-front.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-kept-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const digest = (key: string) => createHash("sha256").update(key).digest("hex");
const keys = join(folder, "keys.yaml");
writeFileSync(
  keys,
  `keys:
  - { sha256: "${digest("one")}", tenant: acme }
  - { sha256: "${digest("two")}", tenant: other }
tenants:
  acme: { limits: { requests: 1 } }
  other: { weight: 1 }
`,
);
const dataDir = join(folder, "data");
const { url } = await serveHttp({ dataDir, keys });
const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const [acme, other] = [clientOf("one"), clientOf("two")];

const line = (id: string) =>
  JSON.stringify({
    custom_id: id,
    method: "POST",
    url: "/v1/chat/completions",
    body: { messages: [{ role: "user", content: id }], max_tokens: 4 },
  });
const lines = Array.from({ length: 6 }, (_, i) => line(`id-${i}`)).join("\n");
const window = { endpoint: "/v1/chat/completions", completion_window: "24h" } as const;
const file = await acme.files.create({
  file: await toFile(Buffer.from(lines), "in.jsonl"),
  purpose: "batch",
});

test("tenants: without a key nothing of files and batches is told", async () => {
  const nobody = clientOf("three");
  for (const ask of [
    () => nobody.files.retrieve(file.id),
    () => nobody.files.list().withResponse(),
    () => nobody.batches.list().withResponse(),
  ])
    await assert.rejects(ask, AuthenticationError);
});

test("tenants: another's file is not found, listed, read, deleted or made a batch", async () => {
  for (const ask of [
    () => other.files.retrieve(file.id),
    () => other.files.content(file.id),
    () => other.files.delete(file.id),
    () => other.batches.create({ input_file_id: file.id, ...window }),
  ])
    await assert.rejects(ask, NotFoundError);
  assert.deepEqual((await other.files.list()).data, []);
  assert.equal((await acme.files.retrieve(file.id)).id, file.id);
});

test("tenants: another's batch is not found; it runs within its own tenant's limits", async () => {
  const made = await acme.batches.create({ input_file_id: file.id, ...window });
  for (const ask of [() => other.batches.retrieve(made.id), () => other.batches.cancel(made.id)])
    await assert.rejects(ask, NotFoundError);
  assert.deepEqual((await other.batches.list()).data, []);
  let batch = made;
  await eventually("it is completed", async () => {
    batch = await acme.batches.retrieve(made.id);
    return batch.status === "completed";
  });
  assert.deepEqual(batch.request_counts, { total: 6, completed: 6, failed: 0 });
  await assert.rejects(other.files.content(batch.output_file_id ?? ""), NotFoundError);
  assert.ok((await (await acme.files.content(batch.output_file_id ?? "")).text()).length > 0);
});

test("tenants: their folders do not tell their names", () => {
  const names = readdirSync(join(dataDir, "tenants"));
  assert.deepEqual(names, [digest("acme")]);
});
