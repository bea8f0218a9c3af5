/**
 * Requests of every kind at random times on a cluster with hardly any cache: each answer is equal to the bit to the
 * same request alone on an idle server whose prefix cache is off.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { GenerateInput, TesseraClient } from "@tessera/client";
import {
  ImageDetail,
  Role,
  type GenerateOnceResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { root } from "../harness/paths.js";
import { valueOf } from "../harness/prometheus.js";
import { seeded } from "../harness/random.js";
import { heldCount } from "../harness/shard-stats.js";

const REQUESTS = 200;
const MAX_MODEL_LEN = 1024;
/** Blocks for a little more than one sequence of the longest kind. */
const TIGHT = {
  maxModelLen: MAX_MODEL_LEN,
  cacheMemory: 2.5 * 2 ** 20,
  embeddingMemory: 1 << 20,
  maxBatchedTokens: 96,
};

const pages = await Promise.all(
  [1, 2, 3, 4].map((n) => readFile(root(`models/documents/document-0${n}.png`))),
);
const PREFIX = "The quick brown fox jumps over the lazy dog, and the dog looks up. ".repeat(3);
const QUESTIONS = ["Read the text.", "What is the name?", `${PREFIX}What is the total?`, PREFIX];

type Constraint = NonNullable<GenerateInput["constraint"]>;
const CONSTRAINTS: Constraint[] = [
  { kind: { case: "jsonSchema", value: '{"type": "array", "items": {"type": "integer"}}' } },
  { kind: { case: "regex", value: "[a-z ]{3,40}" } },
  { kind: { case: "choice", value: { texts: ["yes", "no"] } } },
];

type Random = (n: number) => number;

function pick<T>(below: Random, list: readonly [T, ...T[]]): T {
  return list[below(list.length)] ?? list[0];
}

function messagesOf(below: Random): GenerateInput["messages"] {
  const image = () => ({
    content: {
      case: "image" as const,
      value: {
        data: pages[below(pages.length)] ?? Buffer.alloc(0),
        options: pick(below, [{ maxTiles: 2 }, { detail: ImageDetail.LOW }, { maxTiles: 1 }]),
      },
    },
  });
  const count = pick(below, [0, 0, 0, 1, 1, 2, 3]);
  const text = (value: string) => ({ content: { case: "text" as const, value } });
  const question = text(pick(below, ["Read the text.", ...QUESTIONS]));
  const first = { role: Role.USER, parts: [...Array.from({ length: count }, image), question] };
  if (below(4) > 0) return [first];
  return [
    first,
    { role: Role.ASSISTANT, parts: [text("Yes.")] },
    { role: Role.USER, parts: [text(pick(below, ["Why?", ...QUESTIONS]))] },
  ];
}

/** The seed and everything else is given: nothing about the answer is left to chance. */
function randomRequest(below: Random): GenerateInput {
  const request = {
    messages: messagesOf(below) ?? [],
    maxTokens: 1 + below(60),
    n: pick(below, [1, 1, 1, 2, 3]),
    priority: pick(below, [0, 0, 0, -1, 1]),
    returnTokenIds: true,
    sampling: {
      temperature: pick(below, [0, 0.7, 1.2]),
      seed: BigInt(below(1000)),
      ...(below(3) === 0 ? { topP: 0.9, topK: 20 } : {}),
      ...(below(3) === 0 ? { repetitionPenalty: 1.2, presencePenalty: 0.5 } : {}),
      ...(below(5) === 0 ? { frequencyPenalty: 0.7, badWords: ["the"] } : {}),
    },
  };
  return {
    ...request,
    ...(below(3) === 0 ? { topLogprobs: below(4) } : {}),
    ...(below(6) === 0 ? { promptLogprobs: below(3) } : {}),
    ...(below(6) === 0 ? { minTokens: 1 } : {}),
    ...(below(8) === 0 ? { cacheSalt: pick(below, ["a", "b"]) } : {}),
    ...(below(6) === 0
      ? { constraint: CONSTRAINTS[below(CONSTRAINTS.length)] ?? {}, minTokens: 0 }
      : {}),
    ...(below(8) === 0 ? { stop: { texts: ["e"] } } : {}),
  };
}

function whole(response: GenerateOnceResponse) {
  const prompt = response.started?.promptLogprobs.map(({ tokenId, logprob, top }) => [
    tokenId,
    logprob,
    ...top.map((t) => [t.tokenId, t.logprob]),
  ]);
  return { prompt, choices: essence(response) };
}

/** Cut off after some events; what it had told by then was the beginning of its answer. */
async function cutOff(client: TesseraClient, request: GenerateInput, events: number) {
  // What must match something may be at its end before.
  const { constraint: _constraint, ...rest } = request;
  const stream = client.generate({ ...rest, minTokens: 100, maxTokens: 100 });
  for (let i = 0; i <= events; i++) await stream.next();
  await stream.return(undefined);
}

/** Answers by request, begun at random times. */
async function together(client: TesseraClient, requests: GenerateInput[], below: Random) {
  const answers: Promise<unknown>[] = [];
  for (const [i, request] of requests.entries()) {
    const cut = i % 8 === 7;
    answers.push(
      cut ? cutOff(client, request, below(20)) : client.generateOnce(request).then(whole),
    );
    // Some at once, some when a few of those before have ended.
    if (below(5) === 0) await answers[below(answers.length)];
  }
  return Promise.all(answers);
}

/** Guessed tokens at two of them. */
for (const [model, seed, speculate] of [
  ["nvlm-d-tiny", 1, 4],
  ["nvlm-x-tiny", 2, 0],
  ["nvlm-h-tiny", 3, 3],
] as const)
  test(`${model}: ${REQUESTS} mixed requests under preemption and eviction answer as each alone, without a cache`, async () => {
    const random = seeded(seed);
    const below = (n: number) => Math.floor(random() * n);
    const requests = Array.from({ length: REQUESTS }, () => randomRequest(below));
    const plain = await serve(1, {
      model,
      flags: { maxModelLen: MAX_MODEL_LEN, prefixCache: false },
    });
    const alone: unknown[] = [];
    try {
      for (const request of requests) alone.push(whole(await plain.client.generateOnce(request)));
    } finally {
      await plain.stop();
    }
    const loaded = await serve(2, { model, flags: { ...TIGHT, speculate }, healthPort: 0 });
    try {
      const answers = await together(loaded.client, requests, below);
      alone.forEach((answer, i) => {
        if (i % 8 !== 7) assert.deepEqual(answers[i], answer, `request ${i}`);
      });
      await eventually("nothing is held", async () => (await heldCount(loaded.client)) === 0);
      const text = await (await fetch(`http://${loaded.cluster.health}/metrics`)).text();
      const value = (name: string) => valueOf(text, `tessera_${name}`);
      // Some twenty and some thousand; how many depends on how requests and steps fall together.
      assert.ok(value("num_preemptions_total") > 0, "preemptions");
      assert.ok(value("prefix_cache_hits_total") > 0, "hits of the prefix cache");
      assert.equal(value("spec_decode_num_accepted_tokens_total") > 0, speculate > 0);
    } finally {
      await loaded.stop();
    }
  });
