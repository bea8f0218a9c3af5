/** `tessera plan`: D, X and H side by side for one image, as text and as JSON. */
import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

interface Cost {
  modelType: string;
  crossLayers: number[];
  decoderTokens: number;
  streamRows: number;
  cacheBytes: number;
  crossCacheBytes: number;
  exchangeBytes: number;
  encodeFlops: number;
  prefillFlops: number;
  weightBytes: number;
}
interface Plan {
  vision: string;
  cacheBytesPerToken: number;
  ranks: { embeddingBytes: number; crossCacheBytes: number }[];
  image: {
    width: number;
    height: number;
    grid: number[];
    patches: number;
    tokenizer: string;
    variants: Cost[];
  };
}

const config = await mkdtemp(join(tmpdir(), "tessera-plan-image-"));
after(() => rm(config, { recursive: true }));
await cp(root("test/fixtures/nvlm-d-72b/config.json"), join(config, "config.json"));

async function output(model: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await tessera(["plan", "--model", model, ...args]);
  assert.equal(code, 0, stderr);
  return stdout;
}
const plan = async (model: string, ...args: string[]) =>
  JSON.parse(await output(model, "--json", ...args)) as Plan;
const of = ({ image }: Plan, key: keyof Cost) => image.variants.map((cost) => cost[key]);

test("plan --json: without --image a picture of 1024 × 768 is compared", async () => {
  const made = await plan(config, "--kv", "bf16");
  const { width, height, grid, patches, tokenizer } = made.image;
  assert.deepEqual([width, height, grid, patches], [1024, 768, [3, 2], 7]);
  assert.equal(tokenizer, "public");
  assert.deepEqual(of(made, "modelType"), ["NVLM_D", "NVLM_X", "NVLM_H"]);
  assert.deepEqual(of(made, "decoderTokens"), [1831, 39, 265]);
  assert.deepEqual(of(made, "streamRows"), [0, 1792, 1566]);
  assert.deepEqual(of(made, "cacheBytes"), [599_982_080, 12_779_520, 86_835_200]);
  assert.deepEqual(of(made, "crossCacheBytes"), [0, 73_400_320, 64_143_360]);
});

test("plan --image: a picture of one tile costs H what it costs D", async () => {
  const made = await plan(config, "--image", "448x448", "--tensor-parallel", "2");
  assert.deepEqual([made.image.grid, made.image.patches], [[1, 1], 1]);
  for (const key of ["decoderTokens", "cacheBytes", "exchangeBytes", "prefillFlops"] as const) {
    const [d, , h] = of(made, key);
    assert.equal(h, d, key);
  }
});

test("plan --max-tiles: a larger grid has more tiles and costs more", async () => {
  const [six, twelve] = await Promise.all([
    plan(config, "--image", "640x480"),
    plan(config, "--image", "640x480", "--max-tiles", "12"),
  ]);
  assert.deepEqual([six.image.patches, twelve.image.patches], [7, 13]);
  assert.deepEqual(of(twelve, "decoderTokens"), [3400, 72, 265]);
});

test("plan: the table says what --json says, the model's own variant marked", async () => {
  const text = await output(config, "--kv", "bf16", "--tensor-parallel", "8");
  assert.match(
    text,
    /^one image of 1024 × 768 pixels: 3 × 2 tiles and the thumbnail, 7 × 256 rows/m,
  );
  assert.match(text, /^ +NVLM_D \(this\) +NVLM_X +NVLM_H$/m);
  assert.match(text, /^tokens in the decoder +1831 +39 +265$/m);
  assert.match(text, /^rows in the cross-attention stream +0 +1792 +1566$/m);
  assert.match(text, /^cache of the tokens, bf16 +572 MiB +12\.2 MiB +82\.8 MiB$/m);
  assert.match(text, /^cache of the stream, bf16 +0 B +70 MiB +61\.2 MiB$/m);
  assert.match(text, /^exchange to prefill, 8 ranks( +\d[\d.]* GiB){3}$/m);
  assert.match(text, /^to encode the tiles( +\d[\d.]* Tflop){3}$/m);
  assert.match(text, /10 of 80 decoder layers \(7, 15, … 79\), the defaults of cross_attention_/);
});

test("plan: a model with a tokenizer counts its own ids, and X's own cross-attention is H's", async () => {
  const made = await plan(root("models/nvlm-x-tiny"));
  assert.equal(made.image.tokenizer, "model");
  assert.deepEqual(of(made, "crossLayers"), [[], [1, 3], [1, 3]]);
  const text = await output(root("models/nvlm-x-tiny"));
  assert.match(text, /^ +NVLM_D +NVLM_X \(this\) +NVLM_H$/m);
  assert.match(text, /2 of 4 decoder layers \(1, 3\), as this model has it/);
});

test("plan: every rank's line has its embeddings, and of X its cross-attention cache", async () => {
  const [d, x] = await Promise.all([
    output(root("models/nvlm-d-tiny")),
    output(root("models/nvlm-x-tiny")),
  ]);
  assert.match(d, /^rank 0: .*, embeddings \d+\.\d\d GiB, /m);
  assert.doesNotMatch(d, /cross-attention cache/);
  assert.match(x, /^rank 0: .*, cross-attention cache \d+\.\d\d GiB, .*, embeddings /m);
  assert.match(x, /blocks of 32 rows of images' streams$/m);
});

const visions: [flags: string[], vision: string, said: RegExp][] = [
  [["--vision", "replicate"], "replicate", /^vision encoder: replicate$/m],
  [["--vision", "tensor", "--tensor-parallel", "8"], "tensor", /^vision encoder: tensor$/m],
  [["--vision-workers", "2"], "workers", /^vision encoder: workers, 2 ranks only encode$/m],
  [["--memory", "44", "--tensor-parallel", "8"], "replicate", /^vision encoder: replicate$/m],
  [
    ["--memory", "30", "--tensor-parallel", "8", "--kv", "bf16"],
    "tensor",
    /^vision encoder: tensor$/m,
  ],
];
for (const [flags, vision, said] of visions)
  test(`plan ${flags.join(" ")}: the vision encoder is ${vision}, in the text and in --json`, async () => {
    assert.equal((await plan(config, ...flags)).vision, vision);
    assert.match(await output(config, ...flags), said);
  });
