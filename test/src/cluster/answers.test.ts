/** Requests through a real cluster of two workers. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import type { GenerateOnceResponse } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { assertLikeOracle, essence, requestOf, serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { readGoldens } from "../harness/goldens.js";

const goldens = await readGoldens();
const { client, stop } = await serve(2);
after(stop);
const requests = await Promise.all(goldens.map(requestOf));
const alone: GenerateOnceResponse[] = [];
for (const request of requests) alone.push(await client.generateOnce(request));

/** The first golden request with other settings. */
function vary(change: object): GenerateInput {
  return { ...requests[0], ...change };
}

test("alone: prompt ids and greedy ids are the oracle's, log-probabilities within 2e-3", () => {
  goldens.forEach((golden, i) => assertLikeOracle(alone[i], golden));
});

test("each golden request in a batch with 31 others: the same bits as alone, everything released", async () => {
  const batch = [...requests, ...requests].slice(0, 32);
  assert.equal(batch.length, 32);
  const together = await Promise.all(batch.map((request) => client.generateOnce(request)));
  together.forEach((answer, i) => {
    const same = alone[i % alone.length] ?? assert.fail();
    assert.deepEqual(essence(answer), essence(same), goldens[i % goldens.length]?.name);
  });
  const { load } = await client.getCluster();
  assert.deepEqual([load?.usedBlocks, load?.embeddings, load?.runningSequences], [0, 0, 0]);
});

const settings: NonNullable<GenerateInput["sampling"]>[] = [
  { temperature: 1 },
  { temperature: 1.5, topK: 3 },
  { temperature: 1.2, topP: 0.9 },
  { temperature: 2, minP: 0.05, topK: 50, topP: 0.95 },
  { temperature: 40, topP: 0.97 },
  { temperature: 0.7, repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.4 },
];
const sampled = settings.map((sampling): GenerateInput => ({
  ...requests[0],
  n: 3,
  maxTokens: 12,
  sampling: { ...sampling, seed: 7n },
}));

test("sampling: a seed gives the same choices again, alone and among others, and the choices differ", async () => {
  const first = await Promise.all(sampled.map((request) => client.generateOnce(request)));
  for (const [i, request] of sampled.entries())
    assert.deepEqual(
      essence(await client.generateOnce(request)),
      essence(first[i] ?? assert.fail()),
    );
  const hot = first[4]?.choices.map((choice) => choice.tokenIds.join());
  assert.equal(new Set(hot).size, 3);
});

test("top_k 1 and a tiny top_p at a high temperature give the greedy answer", async () => {
  const greedy = essence(await client.generateOnce(requests[0] ?? {}));
  const narrow: NonNullable<GenerateInput["sampling"]>[] = [
    { temperature: 5, topK: 1 },
    { temperature: 5, topP: 1e-6 },
  ];
  for (const sampling of narrow) {
    assert.deepEqual(essence(await client.generateOnce(vary({ sampling }))), greedy);
  }
});

test("stop, bias, allowed ids, min_tokens and max_tokens hold", async () => {
  const text = alone[0]?.choices[0]?.text ?? "";
  const stopped = await client.generateOnce(vary({ stop: { texts: [text.slice(1, 2)] } }));
  assert.equal(stopped.choices[0]?.text, text.slice(0, text.indexOf(text.slice(1, 2))));
  const one = await client.generateOnce(vary({ maxTokens: 1 }));
  assert.equal(one.choices[0]?.tokenIds.length, 1);
  const long = await client.generateOnce(vary({ minTokens: 9, maxTokens: 9 }));
  assert.equal(long.choices[0]?.tokenIds.length, 9);
  assert.ok(!long.choices[0]?.tokenIds.includes(1002));
  const biased = await client.generateOnce(
    vary({ maxTokens: 3, sampling: { logitBias: { 65: 100 } } }),
  );
  assert.deepEqual(biased.choices[0]?.tokenIds, [65, 65, 65]);
  const allowed = await client.generateOnce(
    vary({ maxTokens: 4, sampling: { allowedTokenIds: [70, 71] } }),
  );
  assert.ok(allowed.choices[0]?.tokenIds.every((id) => id === 70 || id === 71));
});

test("a stream: indices rise by one, texts join to the whole answer, done is last", async () => {
  const events = [];
  for await (const event of client.generate(requests[1] ?? {})) events.push(event);
  assert.deepEqual(
    events.map((event) => event.index),
    events.map((_, i) => BigInt(i)),
  );
  assert.deepEqual([events[0]?.kind.case, events.at(-1)?.kind.case], ["started", "done"]);
  const text = events.map(({ kind }) => (kind.case === "delta" ? kind.value.text : "")).join("");
  assert.equal(text, alone[1]?.choices[0]?.text);
});

test("a client that goes away frees its blocks", async () => {
  const endless = vary({ maxTokens: 3000, minTokens: 3000 });
  for await (const { kind } of client.generate(endless)) if (kind.case === "delta") break;
  const used = async () => (await client.getCluster()).load?.usedBlocks;
  await eventually("its blocks are free", async () => (await used()) === 0);
});
