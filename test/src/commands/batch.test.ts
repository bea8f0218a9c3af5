/** `tessera batch`: lines in, lines out, in order; what is wrong with one line is that line's error. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { tessera } from "../harness/command.js";
import { FLAGS, serve } from "../harness/cluster.js";
import { root } from "../harness/paths.js";

interface Answer {
  id: string;
  custom_id: string | null;
  response: null | {
    status_code: number;
    request_id: string;
    body: {
      model: string;
      choices: {
        message: { content: string };
        finish_reason: string;
        token_ids?: number[];
        logprobs: null | { content: { logprob: number }[] };
      }[];
      usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
      prompt_token_ids?: number[];
    };
  };
  error: null | { code: string; message: string; param: string | null };
}

const folder = await mkdtemp(join(tmpdir(), "tessera-batch-"));
after(() => rm(folder, { recursive: true }));
await mkdir(join(folder, "pictures"));
await copyFile(root("models/documents/document-01.png"), join(folder, "pictures", "page one.png"));
const served = await serve(1);
after(served.stop);
const SERVER = ["--server", served.cluster.address];
assert.equal(FLAGS.kv, "f32");

const URL = "/v1/chat/completions";
const ask = (url: string) => [
  {
    role: "user",
    content: [
      { type: "image_url", image_url: { url } },
      { type: "text", text: "What is the name?" },
    ],
  },
];
const body = { messages: [{ role: "user", content: "Hello" }], max_tokens: 3, min_tokens: 3 };
const line = (customId: unknown, change: object = {}, outer: object = {}) =>
  JSON.stringify({
    custom_id: customId,
    method: "POST",
    url: URL,
    body: { ...body, ...change },
    ...outer,
  });

async function batch(input: string | Uint8Array, args: string[] = SERVER) {
  const [from, to] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await rm(to, { force: true });
  await writeFile(from, input);
  const result = await tessera(["batch", ...args, "-i", from, "-o", to], { cwd: tmpdir() });
  const text = await readFile(to, "utf8").catch(() => "");
  const lines = text.split("\n").filter((one) => one !== "");
  return { ...result, answers: lines.map((one) => JSON.parse(one) as Answer) };
}

test("batch: answers stand in the order of the lines, nothing on stderr without a terminal", async () => {
  const ids = Array.from({ length: 40 }, (_, i) => `line-${i}`);
  const lines = ids.map((id, i) => line(id, { max_tokens: 1 + ((i * 7) % 30), min_tokens: 1 }));
  const { code, stdout, stderr, answers } = await batch(lines.join("\n"));
  assert.deepEqual([code, stdout, stderr], [0, "", ""]);
  assert.deepEqual(
    answers.map((answer) => answer.custom_id),
    ids,
  );
  assert.ok(answers.every(({ error, response }) => error === null && response !== null));
  assert.deepEqual(await readdir(folder), ["in.jsonl", "out.jsonl", "pictures"]);
});

test("batch: an answer has text, reason, usage, and ids and logprobs when they are asked for", async () => {
  const wanted = { return_token_ids: true, logprobs: true, top_logprobs: 2 };
  const { answers } = await batch([line("plain"), line("all", wanted)].join("\r\n"));
  const [plain, all] = answers.map(({ response }) => response?.body);
  assert.ok(plain && all);
  assert.equal(plain.model, "nvlm-d-tiny");
  assert.equal(plain.choices[0]?.finish_reason, "length");
  assert.deepEqual([plain.prompt_token_ids, plain.choices[0]?.logprobs], [undefined, null]);
  assert.equal(all.choices[0]?.message.content, plain.choices[0]?.message.content);
  assert.equal(all.choices[0]?.token_ids?.length, 3);
  assert.equal(all.choices[0]?.logprobs?.content.length, 3);
  assert.equal(all.prompt_token_ids?.length, all.usage.prompt_tokens);
  assert.equal(all.usage.total_tokens, all.usage.prompt_tokens + all.usage.completion_tokens);
});

test("batch: file: paths are relative to the input file, and the same as a data URL", async () => {
  const data = await readFile(join(folder, "pictures", "page one.png"));
  const { answers } = await batch(
    [
      line("file", { messages: ask("file:pictures/page one.png"), max_tokens: 16 }),
      line("absolute", {
        messages: ask(`file:${join(folder, "pictures", "page one.png")}`),
        max_tokens: 16,
      }),
      line("data", {
        messages: ask(`data:image/png;base64,${data.toString("base64")}`),
        max_tokens: 16,
      }),
    ].join("\n"),
  );
  const texts = answers.map(({ response }) => response?.body.choices[0]?.message.content);
  assert.ok((texts[0]?.length ?? 0) > 0, JSON.stringify(answers[0]?.error));
  assert.equal(new Set(texts).size, 1, JSON.stringify(texts));
});

const bad: [string, string | Uint8Array, string | null, string, string | null, RegExp][] = [
  ["no JSON", "{", null, "invalid_json", null, /^line 2: /],
  [
    "invalid UTF-8",
    Buffer.from([0x22, 0xff, 0x22]),
    null,
    "invalid_json",
    null,
    /^line 2: .*utf-8/,
  ],
  ["null", "null", null, "invalid_json", null, /^line 2: it is no JSON object/],
  ["a list", "[]", null, "invalid_json", null, /^line 2: it is no JSON object/],
  ["no custom_id", line(undefined), null, "invalid_request", "custom_id", /custom_id must be/],
  ["a number as custom_id", line(7), null, "invalid_request", "custom_id", /custom_id must be/],
  ["a double custom_id", line("good"), "good", "duplicate_custom_id", "custom_id", /"good" was/],
  ["another method", line("x", {}, { method: "GET" }), "x", "invalid_request", "method", /POST/],
  ["another url", line("x", {}, { url: "/v1/x" }), "x", "invalid_request", "url", /chat\/compl/],
  ["no body", line("x", {}, { body: undefined }), "x", "invalid_argument", "body", /an object/],
  ["another model", line("x", { model: "gpt" }), "x", "model_not_found", "model", /"gpt".*nvlm/],
  ["max_tokens 0", line("x", { max_tokens: 0 }), "x", "invalid_argument", "max_tokens", /is 0/],
  ["suffix", line("x", { suffix: "" }), "x", "not_built", "suffix", /not served/],
  [
    "a picture that is not there",
    line("x", { messages: ask("file:none.png") }),
    "x",
    "invalid_argument",
    "messages[0].content[0].image_url.url",
    /none\.png/,
  ],
  [
    "a picture that is none",
    line("x", { messages: ask("file:in.jsonl") }),
    "x",
    "invalid_image",
    "messages[0].parts[0].image.data",
    /no picture/,
  ],
];
for (const [name, wrong, customId, code, param, message] of bad)
  test(`batch: ${name} is that line's error; its neighbours are answered, and the exit is 0`, async () => {
    const input = Buffer.concat([
      Buffer.from(`${line("good")}\n`),
      Buffer.from(wrong),
      Buffer.from(`\n\n${line("last")}\n`),
    ]);
    const result = await batch(input);
    assert.equal(result.code, 0, result.stderr);
    const [first, middle, last] = result.answers;
    assert.equal(result.answers.length, 3);
    assert.ok(first?.response && last?.response);
    assert.deepEqual([first.error, last.error], [null, null]);
    assert.deepEqual([middle?.custom_id, middle?.response], [customId, null]);
    assert.deepEqual([middle?.error?.code, middle?.error?.param], [code, param]);
    assert.match(middle?.error?.message ?? "", message);
  });

test("batch: no line in, no line out", async () => {
  const { code, answers } = await batch("\n \n");
  assert.deepEqual([code, answers], [0, []]);
});

test("batch: a server that is not there is every line's error", async () => {
  const { code, answers } = await batch(line("a"), ["--server", "127.0.0.1:1"]);
  assert.equal(code, 0);
  assert.equal(answers[0]?.response, null);
  assert.match(answers[0]?.error?.message ?? "", /127\.0\.0\.1:1/);
});

const model = root("models/nvlm-d-tiny");
const refused: [string, string[], RegExp][] = [
  ["neither model nor server", [], /give --model or --server/],
  ["both", [...SERVER, "--model", model], /and not both/],
  ["3 workers", ["--model", model, "--workers", "3"], /size 3: .*next: 2/],
  ["a folder that is no model", ["--model", root("docs")], /config\.json: cannot be read/],
  ["no concurrency", [...SERVER, "--concurrency", "0"], /--concurrency.*1 to 1024/],
];
for (const [name, args, message] of refused)
  test(`batch: ${name} is refused, and nothing is written`, async () => {
    const { code, stderr, answers } = await batch(line("a"), args);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.deepEqual(answers, []);
    assert.ok(!(await readdir(folder)).includes("out.jsonl.partial"));
  });

test("batch: an input that cannot be read and an output that cannot be written are named", async () => {
  const none = join(folder, "none.jsonl");
  const input = await tessera(["batch", ...SERVER, "-i", none, "-o", join(folder, "x")]);
  assert.equal(input.code, 1);
  assert.match(input.stderr, /input \S+none\.jsonl cannot be read: ENOENT/);
  const good = join(folder, "in.jsonl");
  const output = await tessera(["batch", ...SERVER, "-i", good, "-o", join(none, "out.jsonl")]);
  assert.equal(output.code, 1);
  assert.match(output.stderr, /output \S+out\.jsonl cannot be written: ENOENT/);
});

test("batch: with --model a cluster is started for the lines and stopped after them", async () => {
  const { code, stderr, answers } = await batch(line("a"), ["--model", model, "--workers", "2"]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.equal(answers[0]?.response?.status_code, 200);
});

/** Lines of a file that is being written; none while it is not there. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.split("\n").slice(0, -1);
}

test("batch: Ctrl-C keeps the answers that are there, in order, and says where", async () => {
  const input = join(folder, "many.jsonl");
  const output = join(folder, "many-out.jsonl");
  const ids = Array.from({ length: 400 }, (_, i) => `line-${i}`);
  const body = { messages: [{ role: "user", content: "Read." }], min_tokens: 200, max_tokens: 200 };
  const lines = ids.map((custom_id) => {
    const line = { custom_id, method: "POST", url: "/v1/chat/completions", body };
    return JSON.stringify(line);
  });
  await writeFile(input, lines.join("\n"));
  const args = ["batch", ...SERVER, "-i", input, "-o", output, "--concurrency", "4"];
  const child = spawn(process.execPath, [root("cli/bin/tessera.js"), ...args]);
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise((done) => child.once("exit", (code) => done(code)));
  const until = Date.now() + 60_000;
  while ((await linesOf(`${output}.partial`)).length < 5) {
    assert.ok(Date.now() < until, stderr);
    await new Promise((done) => setTimeout(done, 20));
  }
  child.kill("SIGINT");
  assert.equal(await ended, 130);
  const kept = (await linesOf(`${output}.partial`)).map((line) => JSON.parse(line) as Answer);
  assert.ok(kept.length >= 5 && kept.length < ids.length, `${kept.length}`);
  assert.deepEqual(
    kept.map(({ custom_id }) => custom_id),
    ids.slice(0, kept.length),
  );
  assert.match(stderr, new RegExp(`interrupted, the first ${kept.length} of 400 answers are in`));
});

test("batch and chat: settings of a cluster beside --server are refused by name", async () => {
  const kv = await batch(line("a"), [...SERVER, "--kv", "bf16", "--workers", "2"]);
  assert.equal(kv.code, 1);
  assert.match(
    kv.stderr,
    /batch: --kv, --workers: of a cluster|batch: --workers, --kv: of a cluster/,
  );
  const chat = await tessera(["chat", ...SERVER, "--served-model-name", "x", "--prompt", "Hello"]);
  assert.equal(chat.code, 1);
  assert.match(chat.stderr, /chat: --served-model-name: of a cluster, which --server has already/);
  const json = await tessera(["chat", ...SERVER, "--json"]);
  assert.match(json.stderr, /chat: --json needs --prompt/);
});
