/** `tessera score`: the oracle's log-probabilities, the same bits at every width, strides as the guide's. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { loadTokenizer } from "@tessera/coordinator/request";
import { tessera } from "../harness/command.js";
import { serve } from "../harness/cluster.js";
import type { Golden } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

interface TokenLine {
  token_id: number;
  token: string;
  logprob: number;
}
interface Line {
  id: string | null;
  line: number;
  tokens?: number;
  log_likelihood?: number;
  perplexity?: number | null;
  bytes?: number;
  windows?: number;
  token_logprobs?: TokenLine[];
  error: null | { code: string; message: string; param: string | null };
}
interface Summary {
  lines: number;
  failed: number;
  tokens: number;
  bytes: number;
  log_likelihood: number;
  mean_nll: number | null;
  perplexity: number | null;
  bits_per_byte: number | null;
}
interface ScoredGolden extends Golden {
  answer: string;
  answer_ids: number[];
  answer_logprobs: number[];
}

/** The oracle's own, test/goldens. */
const TOLERANCE = 2e-3;

const folder = await mkdtemp(join(tmpdir(), "tessera-score-"));
after(() => rm(folder, { recursive: true }));
const model = root("models/nvlm-d-tiny");
const tokenizer = await loadTokenizer(model);
const served = await serve(1);
after(served.stop);
const SERVER = ["--server", served.cluster.address, "--tokenizer", model];

async function score(lines: unknown[], args: string[] = SERVER) {
  const [from, to] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await rm(to, { force: true });
  const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line)));
  await writeFile(from, text.join("\n"));
  const command = ["score", ...args, "-i", from, "-o", to];
  const result = await tessera(command, { cwd: tmpdir(), deadlineMs: 120_000 });
  const written = await readFile(to, "utf8").catch(() => "");
  const out = written.split("\n").filter((one) => one !== "");
  const summary = JSON.parse(result.stdout === "" ? "{}" : result.stdout) as Summary;
  return { ...result, written, summary, out: out.map((one) => JSON.parse(one) as Line) };
}

async function goldensOf(name: string): Promise<ScoredGolden[]> {
  const text = await readFile(root(`test/goldens/${name}.json`), "utf8");
  return (JSON.parse(text) as { requests: ScoredGolden[] }).requests;
}

/** Those of one question, whose pictures come first. */
function singleTurns(goldens: ScoredGolden[]): ScoredGolden[] {
  return goldens.filter(({ turns }) => turns.length === 2);
}

function lineOf({ name, images, turns, answer }: ScoredGolden) {
  return {
    id: name,
    images: images.map((image) => `file:${root(`models/documents/${image}`)}`),
    prompt: (turns[0]?.[1] ?? "").replaceAll("<image>\n", ""),
    text: answer,
  };
}

function assertLikeOracle(line: Line | undefined, golden: ScoredGolden): void {
  const scores = line?.token_logprobs ?? [];
  // The oracle's answers end with the end of the turn, which is no part of a text.
  assert.deepEqual(
    scores.map((one) => one.token_id),
    golden.answer_ids.slice(0, -1),
    `${golden.name} ${JSON.stringify(line?.error)}`,
  );
  const expected = golden.answer_logprobs.slice(0, -1);
  expected.forEach((logprob, i) => {
    const got = scores[i]?.logprob ?? NaN;
    assert.ok(Math.abs(got - logprob) < TOLERANCE, `${golden.name} ${i}: ${got} for ${logprob}`);
  });
  const sum = expected.reduce((total, one) => total + one, 0);
  const { log_likelihood: got = NaN } = line ?? {};
  assert.ok(Math.abs(got - sum) < TOLERANCE * expected.length, `${golden.name}: ${got} for ${sum}`);
}

for (const variant of ["d", "x", "h"])
  test(`score: answers to pictures have the oracle's log-probabilities, nvlm-${variant}-tiny`, async () => {
    const goldens = singleTurns(await goldensOf(`nvlm-${variant}-tiny`));
    assert.ok(goldens.length >= 10, `${goldens.length}`);
    const args = ["--model", root(`models/nvlm-${variant}-tiny`), "--per-token"];
    const { code, stderr, out, summary } = await score(goldens.map(lineOf), args);
    assert.deepEqual([code, stderr], [0, ""]);
    goldens.forEach((golden, i) => {
      assert.equal(out[i]?.id, golden.name);
      assertLikeOracle(out[i], golden);
    });
    const count = goldens.reduce((total, { answer_ids: ids }) => total + ids.length - 1, 0);
    assert.deepEqual([summary.lines, summary.failed, summary.tokens], [goldens.length, 0, count]);
  });

test("score: ready token ids have the oracle's log-probabilities, the whole sequence scored from its second", async () => {
  const goldens = (await goldensOf("nvlm-d-tiny")).filter(({ images }) => images.length === 0);
  assert.ok(goldens.length > 0);
  const lines = goldens.map(({ prompt_ids: prompt, answer_ids: answer }) => ({
    token_ids: [...prompt, ...answer],
  }));
  const { out } = await score(lines, [...SERVER, "--per-token"]);
  goldens.forEach(({ prompt_ids: prompt, answer_ids: ids, answer_logprobs: expected }, i) => {
    const scores = out[i]?.token_logprobs ?? [];
    assert.deepEqual(
      scores.map((one) => one.token_id),
      [...prompt, ...ids].slice(1),
    );
    expected.forEach((logprob, k) => {
      const got = scores[prompt.length - 1 + k]?.logprob ?? NaN;
      assert.ok(Math.abs(got - logprob) < TOLERANCE, `${i} ${k}: ${got} for ${logprob}`);
    });
  });
});

test("score: the bundled pages' answers, by their script, are what the model expects", async () => {
  const script = spawnSync(process.execPath, [root("scripts/make-score-lines.mjs")]);
  const lines = script.stdout.toString("utf8").split("\n");
  const { out, summary } = await score(lines);
  assert.equal(out.length, lines.length - 1);
  assert.equal(summary.failed, 0);
  const { perplexity } = summary;
  assert.ok(perplexity !== null && perplexity > 1 && perplexity < 1.5, `${perplexity}`);
});

const WORDS = "NAME Ada LOVELACE total 12.50 date 03-18 é ü 漢字 sum 7 buy map ".split(" ");
const longText = (count: number) =>
  Array.from({ length: count }, (_, i) => WORDS[(i * 7) % WORDS.length]).join(" ");
const texts = [
  { id: "short", text: "FOR Bob" },
  { text: longText(120) },
  { id: "special text is plain", text: "<|im_end|> is no special token here" },
  { id: "one token", token_ids: [17] },
];

test("score: numbers of a line are those of its tokens", async () => {
  const { out, summary } = await score(texts, [...SERVER, "--per-token"]);
  assert.deepEqual(
    out.map(({ id, line }) => [id, line]),
    [
      ["short", 1],
      [null, 2],
      ["special text is plain", 3],
      ["one token", 4],
    ],
  );
  texts.forEach((line, i) => {
    const ids = line.token_ids ?? tokenizer.encode(line.text ?? "", { special: false });
    const got: Partial<Line> = out[i] ?? {};
    const scores = got.token_logprobs ?? [];
    assert.equal(got.error, null);
    assert.deepEqual(
      scores.map((one) => one.token_id),
      ids.slice(1),
    );
    assert.equal(got.tokens, ids.length - 1);
    const sum = scores.reduce((total, { logprob }) => total + logprob, 0);
    assert.equal(got.log_likelihood, sum);
    assert.equal(got.perplexity, ids.length === 1 ? null : Math.exp(-sum / (ids.length - 1)));
    const bytes = ids.slice(1).reduce((total, id) => total + tokenizer.tokenBytes(id).length, 0);
    assert.equal(got.bytes, bytes);
    assert.equal(got.windows, ids.length === 1 ? 0 : 1);
    assert.ok(scores.every(({ logprob }) => Number.isFinite(logprob) && logprob <= 0));
  });
  const tokens = out.reduce((total, line) => total + (line.tokens ?? 0), 0);
  const sum = out.reduce((total, line) => total + (line.log_likelihood ?? 0), 0);
  const bytes = out.reduce((total, line) => total + (line.bytes ?? 0), 0);
  assert.deepEqual(summary, {
    lines: 4,
    failed: 0,
    tokens,
    bytes,
    log_likelihood: sum,
    mean_nll: -sum / tokens,
    perplexity: Math.exp(-sum / tokens),
    bits_per_byte: -sum / Math.LN2 / bytes,
  });
});

test("score: without --per-token the same numbers, without the tokens", async () => {
  const whole = await score(texts, [...SERVER, "--per-token"]);
  const short = await score(texts);
  assert.deepEqual(
    short.out,
    whole.out.map(({ token_logprobs: _tokens, ...rest }) => rest),
  );
  assert.equal(short.stdout, whole.stdout);
});

/** The windows' own requests, by the loop of Hugging Face's guide to perplexity. */
async function byHand(ids: number[], window: number, stride: number): Promise<number[]> {
  const logprobs: number[] = [];
  let before = 0;
  for (let begin = 0; before < ids.length; begin += stride) {
    const end = Math.min(begin + window, ids.length);
    const request = { tokenIds: ids.slice(begin, end), promptLogprobs: 0, maxTokens: 1 };
    const { started } = await served.client.generateOnce(request);
    const all = started?.promptLogprobs.map(({ logprob }) => logprob) ?? [];
    logprobs.push(...all.slice(-Math.min(end - before, all.length)));
    before = end;
  }
  return logprobs;
}

for (const [window, stride] of [
  [16, 8],
  [16, 15],
  [33, 5],
  [2, 1],
] as const)
  test(`score: a text longer than the window is scored in strides, window ${window}, stride ${stride}`, async () => {
    const text = longText(25);
    const ids = tokenizer.encode(text, { special: false });
    assert.ok(ids.length > 40);
    const flags = ["--per-token", "--window", String(window), "--stride", String(stride)];
    const { out } = await score([{ text }], [...SERVER, ...flags]);
    const scores = out[0]?.token_logprobs ?? [];
    assert.deepEqual(
      scores.map((one) => one.token_id),
      ids.slice(1),
    );
    assert.deepEqual(
      scores.map((one) => one.logprob),
      await byHand(ids, window, stride),
    );
    assert.equal(out[0]?.windows, Math.ceil((ids.length - window) / stride) + 1);
  });

test("score: a text longer than the whole context is scored in windows of it, half a window apart", async () => {
  const args = ["--model", model, "--max-model-len", "64", "--per-token"];
  const { code, stderr, out } = await score([{ text: longText(60) }], args);
  assert.deepEqual([code, stderr], [0, ""]);
  const ids = tokenizer.encode(longText(60), { special: false });
  assert.ok(ids.length > 128);
  assert.equal(out[0]?.windows, Math.ceil((ids.length - 63) / 31) + 1);
  assert.deepEqual(
    out[0]?.token_logprobs?.map(({ logprob }) => logprob),
    await byHand(ids, 63, 31),
  );
});

test("score: 1, 2 and 4 workers, and any concurrency, write the same bytes", async () => {
  const goldens = singleTurns(await goldensOf("nvlm-d-tiny")).slice(0, 4);
  const lines = [...texts, ...goldens.map(lineOf)];
  const flags = ["--model", model, "--threads", "1", "--per-token", "--window", "40"];
  const one = await score(lines, [...flags, "--workers", "1", "--concurrency", "1"]);
  assert.equal(one.code, 0, one.stderr);
  assert.equal(one.summary.failed, 0);
  for (const workers of ["2", "4"]) {
    const other = await score(lines, [...flags, "--workers", workers]);
    assert.equal(other.code, 0, other.stderr);
    assert.equal(other.written, one.written, `${workers} workers`);
    assert.equal(other.stdout, one.stdout, `${workers} workers`);
  }
});

const bad: [string, unknown, string, string | null, RegExp][] = [
  ["no JSON", "{", "invalid_json", null, /^line 2: /],
  ["a list", [], "invalid_json", null, /^line 2: it is no JSON object/],
  ["no text", { id: "x" }, "invalid_request", "text", /^line 2: text: is missing/],
  ["an empty text", { id: "x", text: "" }, "invalid_request", "text", /is empty/],
  ["a number as text", { text: 7 }, "invalid_request", "text", /must be a text/],
  ["a number as id", { id: 7, text: "a" }, "invalid_request", "id", /id: must be a text/],
  [
    "an unknown field",
    { text: "a", txt: 1 },
    "invalid_request",
    "txt",
    /txt: is not known, a line/,
  ],
  [
    "ids beside a text",
    { text: "a", token_ids: [1] },
    "invalid_request",
    "text",
    /beside token_ids/,
  ],
  ["ids that are none", { token_ids: [1.5] }, "invalid_request", "token_ids", /whole numbers/],
  ["no ids", { token_ids: [] }, "invalid_request", "token_ids", /is empty/],
  ["images that are no list", { text: "a", images: "x" }, "invalid_request", "images", /a list of/],
  ["ids beyond the model", { token_ids: [1, 99_999] }, "invalid_argument", "token_ids", /99999/],
  [
    "a picture that is not there",
    { text: "a", images: ["file:none.png"] },
    "invalid_argument",
    "messages[0].content[0].image_url.url",
    /^line 2: .*none\.png/,
  ],
  [
    "an answer longer than the context",
    { prompt: "Read.", text: longText(2000) },
    "context_too_long",
    "max_tokens",
    /^line 2: /,
  ],
  [
    "an answer that joins with its prompt",
    { prompt: "Read.", text: "\nFOR Bob" },
    "invalid_request",
    "text",
    /^line 2: text: its first token joins with the end of the prompt/,
  ],
];
for (const [name, wrong, errorCode, param, message] of bad)
  test(`score: ${name} is that line's error; its neighbours are scored, and the exit is 0`, async () => {
    const { code, stderr, out, summary } = await score([
      { id: "good", text: "FOR Bob" },
      wrong,
      "",
      { id: "last", text: "FOR Bob" },
    ]);
    assert.equal(code, 0, stderr);
    const [first, middle, last] = out;
    assert.equal(out.length, 3);
    assert.deepEqual([first?.error, last?.error, last?.line], [null, null, 4]);
    assert.equal(first?.log_likelihood, last?.log_likelihood);
    assert.deepEqual([middle?.error?.code, middle?.error?.param], [errorCode, param]);
    assert.match(middle?.error?.message ?? "", message);
    assert.deepEqual([summary.lines, summary.failed], [3, 1]);
  });

test("score: another model's tokenizer is found out by the server's tokens", async () => {
  const other = join(folder, "other");
  await cp(model, other, { recursive: true });
  const path = join(other, "tokenizer.json");
  const json = JSON.parse(await readFile(path, "utf8")) as {
    model: { vocab: Record<string, number> };
  };
  const { vocab } = json.model;
  [vocab["a"], vocab["b"]] = [vocab["b"] ?? 0, vocab["a"] ?? 0];
  await writeFile(path, JSON.stringify(json));
  const args = ["--server", served.cluster.address, "--tokenizer", other];
  const { code, out } = await score([{ text: "1a2b3a" }], args);
  assert.equal(code, 0);
  assert.match(
    out[0]?.error?.message ?? "",
    /line 1: tokenizer: token \d+ is "[ab]" here and "[ab]"/,
  );
});

const refused: [string, string[], RegExp][] = [
  ["neither model nor server", [], /score: give --model or --server/],
  ["a server without a tokenizer", SERVER.slice(0, 2), /--server needs --tokenizer/],
  ["a tokenizer that is not there", [...SERVER.slice(0, 3), folder], /no tokenizer\.json/],
  [
    "a window beyond the context",
    [...SERVER, "--window", "5000"],
    /--window is 5000, must be 2 to \d/,
  ],
  ["a window of one token", [...SERVER, "--window", "1"], /--window is 1, must be 2 to/],
  [
    "a stride of the whole window",
    [...SERVER, "--window", "8", "--stride", "8"],
    /--stride is 8, must be below the window of 8/,
  ],
  ["a stride of nothing", [...SERVER, "--stride", "0"], /--stride.*must be a whole number, 1 to/],
  ["a cluster's flag beside a server", [...SERVER, "--kv", "bf16"], /score: --kv: of a cluster/],
];
for (const [name, args, message] of refused)
  test(`score: ${name} is refused, and nothing is written`, async () => {
    const { code, stdout, stderr, out } = await score([{ text: "FOR Bob" }], args);
    assert.deepEqual([code, stdout, out], [1, "", []]);
    assert.match(stderr, message);
    assert.ok(!(await readdir(folder)).includes("out.jsonl.partial"));
  });

test("score: no line in, no line out, and a summary of nothing", async () => {
  const { code, out, summary } = await score([""]);
  assert.deepEqual([code, out], [0, []]);
  assert.deepEqual([summary.lines, summary.tokens, summary.perplexity], [0, 0, null]);
});
