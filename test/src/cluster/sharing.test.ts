/** What requests share of pictures, counted by the coordinator's metrics. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve, type Served } from "../harness/cluster.js";
import { get } from "../harness/http.js";
import { root } from "../harness/paths.js";
import { families, valueOf } from "../harness/prometheus.js";

const QUESTIONS = [
  "What is the name?",
  "Read the text.",
  "What is the total?",
  "What is the date?",
  "Read the text.",
];
/** Pictures of several tiles each. */
const pictures = await Promise.all(
  ["document-21.png", "document-05.png", "document-07.png"].map((name) =>
    readFile(root(`models/documents/${name}`)),
  ),
);
const image = (data: Uint8Array) => ({ content: { case: "image" as const, value: { data } } });
const text = (value: string) => ({ content: { case: "text" as const, value } });

/** The n-th turn of a conversation that shows one picture in its first turn and another in its third. */
async function turnOf(served: Served, messages: NonNullable<GenerateInput["messages"]>, n: number) {
  const shown = [0, 2].indexOf(n);
  const parts = shown < 0 ? [] : [image(pictures[shown] ?? Buffer.alloc(0))];
  messages.push({ role: Role.USER, parts: [...parts, text(QUESTIONS[n] ?? "")] });
  const answer = await served.client.generateOnce({ messages, maxTokens: 12 });
  messages.push({ role: Role.ASSISTANT, parts: [text(answer.choices[0]?.text || "None.")] });
  return answer;
}

async function scrape({ cluster }: Served): Promise<string> {
  return (await get(cluster.health, "/metrics")).text;
}

/** Sum of a histogram, or a counter. */
function total(page: string, name: string): number {
  const samples = families(page).flatMap((family) => family.samples);
  return samples.find((sample) => sample.name === name)?.value ?? NaN;
}

for (const [model, streams] of [
  ["nvlm-d-tiny", 0],
  ["nvlm-x-tiny", 2],
  ["nvlm-h-tiny", 2],
] as const)
  test(`${model}: five turns about two pictures encode each tile once, and each image's keys and values`, async () => {
    const served = await serve(2, { model, healthPort: 0 });
    try {
      const messages: NonNullable<GenerateInput["messages"]> = [];
      let tiles = 0;
      for (const n of QUESTIONS.keys())
        tiles = (await turnOf(served, messages, n)).usage?.tiles ?? 0;
      const page = await scrape(served);
      assert.ok(tiles >= 6, `${tiles}`);
      assert.equal(total(page, "tessera_encode_batch_tiles_sum"), tiles);
      assert.equal(total(page, "tessera_cross_cache_computed_total"), streams);
      const asked = streams === 0 ? 0 : 1 + 1 + 2 + 2 + 2;
      assert.equal(total(page, "tessera_cross_cache_queries_total"), asked);
      assert.equal(total(page, "tessera_cross_cache_hits_total"), asked - streams);
      for (const name of ["tessera_image_embeddings", "tessera_cross_cache_blocks"])
        assert.equal(valueOf(page, name, { state: "held" }), 0, name);
      const { load } = await served.client.getCluster();
      assert.deepEqual([load?.usedBlocks, load?.runningSequences], [0, 0]);
    } finally {
      await served.stop();
    }
  });

for (const model of ["nvlm-x-tiny", "nvlm-h-tiny"])
  test(`${model}: four choices and two requests at once share a picture; texts hold nothing of it`, async () => {
    const served = await serve(2, { model, healthPort: 0 });
    try {
      const { client } = served;
      const messages = [
        { role: Role.USER, parts: [image(pictures[0] ?? Buffer.alloc(0)), text("Read the text.")] },
      ];
      const request = { messages, maxTokens: 12, returnTokenIds: true, topLogprobs: 1 };
      const plain = {
        messages: [{ role: Role.USER, parts: [text("What is the capital of France?")] }],
        maxTokens: 4,
      };
      await client.generateOnce(plain);
      assert.equal(valueOf(await scrape(served), "tessera_cross_cache_queries_total"), 0);
      const [four, one] = await Promise.all([
        client.generateOnce({ ...request, n: 4 }),
        client.generateOnce(request),
        client.generateOnce(plain),
      ]);
      const [same] = essence(one);
      for (const choice of essence(four)) assert.deepEqual(choice, same);
      const page = await scrape(served);
      assert.equal(total(page, "tessera_cross_cache_computed_total"), 1);
      assert.equal(total(page, "tessera_encode_batch_tiles_sum"), one.usage?.tiles);
    } finally {
      await served.stop();
    }
  });

const row = (count: number) =>
  Array.from({ length: count }, (_, i) => image(pictures[i % 3] ?? Buffer.alloc(0)));

test("pictures of more tiles than the workers hold are refused, and others are served", async () => {
  // Seven embeddings of 16 rows of 256 values.
  const flags = { embeddingMemory: 7 * 16 * 256 * 4 };
  const served = await serve(1, { flags });
  try {
    const ask = (count: number) =>
      served.client.generateOnce({
        messages: [{ role: Role.USER, parts: [...row(count), text("Read the text.")] }],
        maxTokens: 2,
      });
    await assert.rejects(ask(3), {
      code: "INVALID_ARGUMENT",
      message:
        /messages: have images of \d+ different tiles, the workers hold 7 \(embedding-memory\)/,
    });
    assert.equal((await ask(1)).choices.length, 1);
  } finally {
    await served.stop();
  }
});

test("more pictures than the cross-attention cache holds at once wait; evicted ones are computed again", async () => {
  const names = ["01", "03", "05", "07", "08", "10", "11", "13"];
  const all = await Promise.all(
    names.map((name) => readFile(root(`models/documents/document-${name}.png`))),
  );
  const requests = all.map((data) => ({
    messages: [{ role: Role.USER, parts: [image(data), text("Read the text.")] }],
    maxTokens: 16,
    returnTokenIds: true,
    topLogprobs: 1,
  }));
  const served = await serve(1, { model: "nvlm-x-tiny", healthPort: 0 });
  const wide = await Promise.all(requests.map((request) => served.client.generateOnce(request)));
  await served.stop();
  // One image of the largest size: 13 tiles of 16 rows and tags of 16 ids; two layers of keys and values in f32.
  const crossCacheMemory = Math.ceil((13 * 32) / 32) * 32 * 2 * 2 * 8 * 16 * 4;
  const narrow = await serve(1, {
    model: "nvlm-x-tiny",
    healthPort: 0,
    flags: { crossCacheMemory },
  });
  try {
    for (let round = 0; round < 2; round++) {
      const got = await Promise.all(requests.map((request) => narrow.client.generateOnce(request)));
      assert.deepEqual(got.map(essence), wide.map(essence));
    }
    const page = await scrape(narrow);
    assert.ok(total(page, "tessera_cross_cache_computed_total") > names.length);
    assert.equal(valueOf(page, "tessera_cross_cache_blocks", { state: "held" }), 0);
  } finally {
    await narrow.stop();
  }
});
