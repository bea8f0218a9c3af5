/** `tessera plan` on NVLM-D-72B, from config.json and the index alone. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

interface Plan {
  size: number;
  kvType: string;
  blockCount: number;
  cacheBytesPerToken: number;
  exchangeBytesPerToken: number;
  exchangeBytesPerPromptToken: number;
  modelBytes: { stored: number; computed: number };
  ranks: {
    rank: number;
    weightBytes: number;
    cacheBytes: number;
    workspaceBytes: number;
    processBytes: number;
    feedForwardColumns: number;
    kvHeads: number;
    encodes: boolean;
  }[];
}

const model = await mkdtemp(join(tmpdir(), "tessera-plan-"));
after(() => rm(model, { recursive: true }));
for (const file of ["config.json", "model.safetensors.index.json"])
  await cp(root(`test/fixtures/nvlm-d-72b/${file}`), join(model, file));

async function plan(...args: string[]): Promise<Plan> {
  const { code, stdout, stderr } = await tessera(["plan", "--model", model, "--json", ...args]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Plan;
}

test("plan: the folder has config.json and the index only", async () => {
  assert.deepEqual((await readdir(model)).sort(), ["config.json", "model.safetensors.index.json"]);
});

test("plan: both sums of weights are printed, and what a token costs", async () => {
  const { code, stdout } = await tessera([
    "plan",
    "--model",
    model,
    "--tensor-parallel",
    "8",
    "--kv",
    "bf16",
    "--memory",
    "40",
  ]);
  assert.equal(code, 0);
  assert.match(stdout, /158\.76 GB of bf16 weights with dummy heads, 157\.73 GB without/);
  assert.match(stdout, /327680 bytes per token \(bf16\), 8346 blocks of 32 tokens/);
  assert.match(stdout, /295436288 bytes per token decoded alone/);
  const ranks = stdout.match(/^rank \d: .*$/gm) ?? [];
  assert.equal(ranks.length, 8);
  for (const line of ranks) {
    assert.match(line, /weights \d+\.\d\d GiB, cache 10\.19 GiB, workspace .*, encodes$/);
    assert.match(line, /, embeddings 0\.50 GiB, process 0\.09 GiB, /);
  }
});

test("plan: int8 has room for nearly twice the tokens of bf16 in the same memory", async () => {
  const args = ["plan", "--model", model, "--tensor-parallel", "8", "--memory", "40"];
  const { code, stdout } = await tessera([...args, "--kv", "int8"]);
  assert.equal(code, 0);
  assert.match(stdout, /168960 bytes per token \(int8\), 16187 blocks of 32 tokens/);
  const ranks = stdout.match(/^rank \d: .*, cache 10\.19 GiB, .*$/gm) ?? [];
  assert.equal(ranks.length, 8);
});

test("plan --json: tensor-parallel 8 cuts 29568 columns as 3648, 3712, 3712, 3712 twice", async () => {
  const { ranks, size } = await plan("--tensor-parallel", "8");
  assert.equal(size, 8);
  const columns = [3648, 3712, 3712, 3712];
  assert.deepEqual(
    ranks.map((rank) => rank.feedForwardColumns),
    [...columns, ...columns],
  );
  assert.ok(ranks.every((rank) => rank.kvHeads === 1 && rank.encodes));
});

test("plan --json: a cache in f32 takes twice the bytes of one in bf16, int8 a byte a value and scales", async () => {
  const types = ["f32", "bf16", "int8"];
  const all = await Promise.all(types.map((type) => plan("--kv", type)));
  assert.deepEqual(
    all.map((of) => of.cacheBytesPerToken),
    [655_360, 327_680, 168_960],
  );
  assert.deepEqual(
    all.map((of) => of.kvType),
    types,
  );
  const narrow = all[1] ?? assert.fail();
  assert.equal((narrow.modelBytes.stored / 1e9).toFixed(2), "158.76");
  assert.equal((narrow.modelBytes.computed / 1e9).toFixed(2), "157.73");
});

test("plan --json: the memory given is not exceeded by any rank", async () => {
  const { ranks, blockCount } = await plan("--tensor-parallel", "4", "--memory", "80");
  assert.ok(blockCount > 1024);
  for (const rank of ranks) {
    const { weightBytes, cacheBytes, workspaceBytes, processBytes } = rank;
    assert.ok(weightBytes + cacheBytes + workspaceBytes + processBytes <= 80 * 2 ** 30);
  }
});

test("plan --json: one rank exchanges nothing, two send each other every partial", async () => {
  const [one, two] = await Promise.all([plan(), plan("--tensor-parallel", "2")]);
  assert.deepEqual([one.exchangeBytesPerToken, one.exchangeBytesPerPromptToken], [0, 0]);
  assert.equal(two.exchangeBytesPerToken, 161 * 8192 * 4 * 2);
});

const refused: [string, string[], RegExp][] = [
  [
    "16 ranks",
    ["--tensor-parallel", "16"],
    /size 16: the 8 key-value heads give 8 lanes, .*whole lanes; possible: 1, 2, 4, 8; next: 8/,
  ],
  ["3 ranks", ["--tensor-parallel", "3"], /size 3: .*next: 2/],
  ["0 ranks", ["--tensor-parallel", "0"], /size 0: .*next: 1/],
  [
    "too little memory",
    ["--tensor-parallel", "8", "--memory", "16"],
    /memory of 17179869184 bytes a rank: weights, workspace and process take \d+; .* needs \d+/,
  ],
  ["memory that is no number", ["--memory", "much"], /--memory.*'much' is invalid/],
  ["a context that is too long", ["--max-model-len", "40000"], /max-model-len 40000: .*1…32768/],
  ["an unknown cache type", ["--kv", "int3"], /--kv.*int3/],
  [
    "an unknown vision placement",
    ["--vision", "split"],
    /--vision.*'split'.*replicate, tensor, auto/,
  ],
  ["half a vision worker", ["--vision-workers", "0.5"], /--vision-workers.*'0.5'.*whole number/],
  ["a picture of no width", ["--image", "0x10"], /--image.*'0x10'.*<width>x<height>, each 1 pixel/],
  ["a picture of one number", ["--image", "640"], /--image.*'640'.*<width>x<height>/],
  ["a picture that is too wide", ["--image", "20000x500"], /--image: is 20000 × 500.*limit 16384/],
  ["too many pixels", ["--image", "16384x16384"], /--image: has 268435456 pixels, limit 67108864/],
  ["a picture that is too narrow", ["--image", "2010x10"], /--image: is 2010 × 10.*limit 200:1/],
  ["13 tiles", ["--max-tiles", "13"], /--max-tiles.*'13'.*1 to 12/],
  ["no tiles", ["--max-tiles", "0"], /--max-tiles.*'0'.*1 to 12/],
];
for (const [name, args, message] of refused)
  test(`plan: ${name} is refused with the reason`, async () => {
    const { code, stdout, stderr } = await tessera(["plan", "--model", model, ...args]);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.match(stderr, message);
  });

test("plan: a folder without config.json is refused by name", async () => {
  const { code, stderr } = await tessera(["plan", "--model", root("test/goldens")]);
  assert.equal(code, 1);
  assert.match(stderr, /config\.json: cannot be read/);
});
