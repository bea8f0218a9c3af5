/** The official OpenAI client, unmodified: files. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { BadRequestError, NotFoundError, toFile } from "openai";
import { serveHttp } from "../harness/http-front.js";

const dataDir = mkdtempSync(join(tmpdir(), "tessera-files-"));
const { openai, url, call } = await serveHttp({ dataDir });
after(() => rmSync(dataDir, { recursive: true, force: true }));

const TEXT = '{"a": 1}\n{"b": "名前"}\n';
const create = async (name: string, text: string | Buffer = TEXT) =>
  openai.files.create({ file: await toFile(Buffer.from(text), name), purpose: "batch" });

/** Names of all that lies on disk. */
const onDisk = () =>
  readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)
    .sort();

test("files: what is sent is told, read back to the byte, and deleted", async () => {
  const file = await create("in.jsonl");
  assert.match(file.id, /^file-[0-9a-f]{32}$/);
  assert.equal(file.object, "file");
  assert.equal(file.bytes, Buffer.byteLength(TEXT));
  assert.equal(file.filename, "in.jsonl");
  assert.equal(file.purpose, "batch");
  assert.ok(Math.abs(file.created_at - Date.now() / 1e3) < 60);
  assert.deepEqual(await openai.files.retrieve(file.id), file);
  const content = await openai.files.content(file.id);
  assert.equal(await content.text(), TEXT);
  assert.equal(content.headers.get("content-length"), String(file.bytes));
  assert.deepEqual(onDisk(), [`${file.id}.data`, `${file.id}.json`]);
  assert.deepEqual(await openai.files.delete(file.id), {
    id: file.id,
    object: "file",
    deleted: true,
  });
  for (const gone of [
    openai.files.retrieve(file.id),
    openai.files.content(file.id),
    openai.files.delete(file.id),
  ])
    await assert.rejects(gone, NotFoundError);
  assert.deepEqual(onDisk(), []);
});

test("files: a list has pages, newest first, and goes through all", async () => {
  const made: string[] = [];
  for (let i = 0; i < 5; i++) made.push((await create(`in-${i}.jsonl`)).id);
  const all: string[] = [];
  for await (const file of openai.files.list({ limit: 2 })) all.push(file.id);
  assert.deepEqual(new Set(all), new Set(made));
  const rising = await openai.files.list({ order: "asc", limit: 10_000 });
  assert.deepEqual(
    rising.data.map(({ id }) => id),
    [...all].reverse(),
  );
  assert.equal(rising.has_more, false);
  const first = await openai.files.list({ limit: 3, purpose: "batch" });
  assert.equal(first.data.length, 3);
  assert.equal(first.has_more, true);
  assert.deepEqual((await openai.files.list({ purpose: "batch_output" })).data, []);
  for (const id of made) await openai.files.delete(id);
});

test("files: several at once and a long one are kept whole", async () => {
  const text = Buffer.alloc(3 << 20, `${"x".repeat(1023)}\n`);
  const files = await Promise.all(
    Array.from({ length: 4 }, (_, i) => create(`many-${i}.jsonl`, text)),
  );
  assert.equal(new Set(files.map(({ id }) => id)).size, 4);
  for (const { id, bytes } of files) {
    assert.equal(bytes, text.length);
    const content = Buffer.from(await (await openai.files.content(id)).arrayBuffer());
    assert.ok(content.equals(text));
    await openai.files.delete(id);
  }
});

/** A form as it is sent; parts in the order given. */
function form(...parts: [name: string, value: string, filename?: string][]): FormData {
  const data = new FormData();
  for (const [name, value, filename] of parts)
    if (filename === undefined) data.append(name, value);
    else data.append(name, new Blob([value]), filename);
  return data;
}
async function send(body: FormData): Promise<{ status: number; param: string | null }> {
  const response = await fetch(`${url}/v1/files`, { method: "POST", body });
  const json = (await response.json()) as { error?: { param: string | null } };
  return { status: response.status, param: json.error?.param ?? null };
}

const file = ["file", TEXT, "in.jsonl"] as [string, string, string];
const bad: [name: string, form: FormData, param: string][] = [
  ["another purpose", form(["purpose", "fine-tune"], file), "purpose"],
  ["no purpose", form(file), "purpose"],
  ["no file", form(["purpose", "batch"]), "file"],
  ["a file that is a text", form(["purpose", "batch"], ["file", TEXT]), "file"],
  ["an empty file", form(["file", "", "in.jsonl"], ["purpose", "batch"]), "file"],
  ["a file of another kind", form(["file", TEXT, "in.txt"], ["purpose", "batch"]), "file"],
  ["a name without end", form(["file", TEXT, `${"x".repeat(300)}.jsonl`]), "file"],
  ["a file under another name", form(["data", TEXT, "in.jsonl"], ["purpose", "batch"]), "data"],
  ["two files", form(file, file, ["purpose", "batch"]), "body"],
  [
    "an expiry",
    form(["expires_after[seconds]", "3600"], file, ["purpose", "batch"]),
    "expires_after[seconds]",
  ],
  [
    "many fields",
    form(...Array.from({ length: 20 }, () => file.slice(0, 2) as [string, string])),
    "body",
  ],
];
for (const [name, body, param] of bad)
  test(`files: ${name} is refused, and nothing is left`, async () => {
    const answer = await send(body);
    assert.ok(answer.status >= 400 && answer.status < 500, String(answer.status));
    assert.equal(answer.param, param);
    assert.deepEqual(onDisk(), []);
  });

test("files: a body that is no form is refused", async () => {
  for (const headers of [{}, { "content-type": "text/plain" }]) {
    const answer = await call("POST", "/v1/files", { text: "{}", headers });
    assert.equal(answer.status, 400);
    assert.match(answer.text, /content-type.*must be multipart\/form-data/);
  }
  const cut = "--x\r\ncontent-disposition: form-data; name=file; filename=a.jsonl\r\n\r\n{}";
  const headers = { "content-type": "multipart/form-data; boundary=x" };
  const answer = await call("POST", "/v1/files", { text: cut, headers });
  assert.equal(answer.status, 400, answer.text);
  assert.deepEqual(onDisk(), []);
});

test("files: an id is no path", async () => {
  for (const id of ["..", "%2e%2e%2f%2e%2e", "..%2Fstate.json", "file-%00", "a/b"])
    for (const path of [`/v1/files/${id}`, `/v1/files/${id}/content`])
      assert.equal((await call("GET", path)).status, 404, path);
});

test("files: pages that cannot be are refused by name", async () => {
  for (const [query, param] of [
    ["limit=0", "limit"],
    ["limit=10001", "limit"],
    ["limit=x", "limit"],
    ["limit=1&limit=2", "limit"],
    ["order=up", "order"],
    ["after=file-none", "after"],
    ["after=a&after=b", "after"],
    ["purpose=vision", "purpose"],
    ["page=2", "page"],
  ] as const) {
    const answer = await call("GET", `/v1/files?${query}`);
    assert.equal(answer.status, 400, query);
    assert.equal((answer.json as { error: { param: string } }).error.param, param);
  }
});

test("files: without --data-dir the routes say so", async () => {
  const { openai: none } = await serveHttp();
  const file = await toFile(Buffer.from(TEXT), "a.jsonl");
  const batch = { input_file_id: "file-a", endpoint: "/v1/chat/completions" } as const;
  const calls: (() => Promise<unknown>)[] = [
    () => none.files.list().withResponse(),
    () => none.files.retrieve("file-a"),
    () => none.files.create({ file, purpose: "batch" }),
    () => none.batches.list().withResponse(),
    () => none.batches.create({ ...batch, completion_window: "24h" }),
    () => none.batches.cancel("batch_a"),
  ];
  for (const ask of calls)
    await assert.rejects(ask, (error: unknown) => {
      assert.ok(error instanceof NotFoundError, String(error));
      assert.match(error.message, /started without --data-dir/);
      return true;
    });
});

test("files: the client's own check of a wrong purpose is a BadRequestError", async () => {
  const asked = openai.files.create({
    file: await toFile(Buffer.from(TEXT), "a.jsonl"),
    purpose: "assistants",
  });
  await assert.rejects(asked, BadRequestError);
});
