/** `--speculate`: tokens, texts, log-probabilities and ends are those without it, at every width, whatever is asked for. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Role, type GenerateInput, type TesseraClient } from "@tessera/client";
import { FinishReason } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve, type Served } from "../harness/cluster.js";
import { eventually } from "../harness/eventually.js";
import { get } from "../harness/http.js";
import { serveInProcess } from "../harness/in-process.js";
import { root } from "../harness/paths.js";
import { valueOf } from "../harness/prometheus.js";
import { heldCount } from "../harness/shard-stats.js";
import { writeWideVocabulary } from "../harness/wide-vocabulary.js";

const page = await readFile(root("models/documents/document-05.png"));
const text = (value: string) => ({ content: { case: "text" as const, value } });
const image = { content: { case: "image" as const, value: { data: page } } };
const REPEATED = "The quick brown fox jumps over the lazy dog. ".repeat(4);
const ask = { messages: [{ role: Role.USER, parts: [text(`${REPEATED}Read the text.`)] }] };

/** Long enough that the small models repeat themselves. */
const long = { ...ask, maxTokens: 70, returnTokenIds: true, stop: { ignoreEos: true } };
/** Two ids by turns or at random, often with the same ones before. */
const few = { allowedTokenIds: [70, 71], temperature: 1, seed: 3n };
/** Two ids have about half of the mass, a thousand others the rest. */
const WIDE_NUCLEUS: GenerateInput = {
  ...long,
  sampling: { temperature: 16, topP: 0.99, seed: 9n, logitBias: { 70: 100, 71: 100 } },
  topLogprobs: 1,
};
const schema = JSON.stringify({
  type: "array",
  minItems: 3,
  maxItems: 8,
  items: {
    type: "object",
    properties: { name: { enum: ["quick brown fox", "lazy dog"] }, count: { type: "integer" } },
    required: ["name", "count"],
    additionalProperties: false,
  },
});
const constrained = { ...ask, maxTokens: 90, returnTokenIds: true };

const REQUESTS: Record<string, GenerateInput> = {
  greedy: long,
  "one id": { ...long, sampling: { allowedTokenIds: [70] }, topLogprobs: 2 },
  logprobs: { ...long, topLogprobs: 4, promptLogprobs: 1 },
  seeded: { ...long, sampling: { temperature: 0.8, seed: 5n }, topLogprobs: 1 },
  "two ids": { ...long, sampling: few },
  choices: { ...long, n: 3, sampling: few },
  filters: { ...long, sampling: { ...few, topK: 2, topP: 0.9, minP: 0.01 } },
  nucleus: WIDE_NUCLEUS,
  penalties: {
    ...long,
    sampling: { ...few, repetitionPenalty: 1.2, presencePenalty: 0.3, frequencyPenalty: 0.1 },
    topLogprobs: 1,
  },
  "greedy penalties": { ...long, sampling: { repetitionPenalty: 1.05, frequencyPenalty: 0.02 } },
  "bad words": { ...long, sampling: { badWords: ["e", "fox", "the lazy"] } },
  "min tokens": { ...ask, returnTokenIds: true, minTokens: 30, maxTokens: 60 },
  bias: { ...long, sampling: { logitBias: { 70: 9, 71: 9.5 } } },
  "stop text": { ...long, sampling: few, stop: { ignoreEos: true, texts: ["GGFG", "FFGF"] } },
  "stop id": { ...long, sampling: few, stop: { ignoreEos: true, tokenIds: [71] }, minTokens: 20 },
  "two tokens": { ...long, maxTokens: 2 },
  "nine tokens": { ...long, maxTokens: 9, sampling: { allowedTokenIds: [70] } },
  picture: { ...long, messages: [{ role: Role.USER, parts: [image, text("Read the text.")] }] },
  schema: {
    ...constrained,
    constraint: { kind: { case: "jsonSchema", value: schema } },
    sampling: { temperature: 0.7, seed: 4n },
    topLogprobs: 1,
    n: 2,
  },
  "greedy schema": { ...constrained, constraint: { kind: { case: "jsonSchema", value: schema } } },
  regex: {
    ...constrained,
    constraint: { kind: { case: "regex", value: "(ab|ac){4,30}" } },
    minTokens: 12,
    sampling: { temperature: 1, seed: 2n },
  },
  choice: {
    ...constrained,
    constraint: { kind: { case: "choice", value: { texts: [REPEATED, "no"] } } },
    minTokens: 80,
  },
};

type Answers = Record<string, unknown>;

async function answersOf(client: TesseraClient): Promise<Answers> {
  const entries = Object.entries(REQUESTS).map(async ([name, request]) => {
    const answer = await client.generateOnce(request);
    const prompt = answer.started?.promptLogprobs.map(({ tokenId, logprob }) => [tokenId, logprob]);
    return [name, { prompt, choices: essence(answer) }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

async function using<T>(served: Promise<Served>, work: (served: Served) => Promise<T>): Promise<T> {
  const cluster = await served;
  try {
    return await work(cluster);
  } finally {
    await cluster.stop();
  }
}

async function counters({ cluster }: Served) {
  const { text: all } = await get(cluster.health, "/metrics");
  const of = (what: string) => valueOf(all, `tessera_spec_decode_num_${what}_total`);
  const preempted = valueOf(all, "tessera_num_preemptions_total");
  const guesses = { slices: of("drafts"), drafts: of("draft_tokens") };
  return { ...guesses, accepted: of("accepted_tokens"), preempted };
}

const plain = new Map<string, Answers>();
const plainOf = (model: string) => plain.get(model) ?? assert.fail(`no answers of ${model}`);

/** Of little more than one sequence of the longest kind. */
const TIGHT = { maxBatchedTokens: 40, maxModelLen: 512, cacheMemory: 512 * 2048 };

for (const [model, workers, speculate, flags, preemptions] of [
  ["nvlm-d-tiny", 1, 4, {}, 0],
  ["nvlm-d-tiny", 2, 16, TIGHT, 1],
  ["nvlm-x-tiny", 2, 4, {}, 0],
  ["nvlm-h-tiny", 1, 3, { maxSequences: 3 }, 0],
] as const)
  test(`${model}, ${workers} workers, ${speculate} guesses: every answer to the bit as without; guesses come true`, async () => {
    if (!plain.has(model))
      await using(serve(1, { model, healthPort: 0 }), async (served) => {
        plain.set(model, await answersOf(served.client));
        const { slices, drafts, accepted } = await counters(served);
        assert.deepEqual([slices, drafts, accepted], [0, 0, 0]);
      });
    const settings = { model, healthPort: 0, flags: { ...flags, speculate } };
    await using(serve(workers, settings), async (served) => {
      const answers = await answersOf(served.client);
      for (const name of Object.keys(REQUESTS))
        assert.deepEqual(answers[name], plainOf(model)[name], name);
      const { slices, drafts, accepted, preempted } = await counters(served);
      assert.ok(preempted >= preemptions, `${preempted} preemptions`);
      assert.ok(accepted > 100 && drafts > accepted && slices < drafts, `${accepted} of ${drafts}`);
      await eventually("nothing is held", async () => (await heldCount(served.client)) === 0);
    });
  });

test("a nucleus wider than a lane's first 256 candidates: the same answers with guesses, at 1 and 2 workers", async () => {
  const model = await mkdtemp(join(tmpdir(), "tessera-wide-"));
  try {
    await writeWideVocabulary(model, 8192);
    const requests = [1n, 2n, 3n].map((seed) => ({
      ...WIDE_NUCLEUS,
      sampling: { ...WIDE_NUCLEUS.sampling, seed },
    }));
    const ask = ({ client }: Served) =>
      Promise.all(requests.map((request) => client.generateOnce(request)));
    const without = (await using(serve(1, { model }), ask)).map(essence);
    const drawn = new Set(without.flat().flatMap(({ tokenIds }) => tokenIds));
    assert.ok(drawn.size > 50, `${drawn.size} ids`);
    for (const workers of [1, 2]) {
      const settings = { model, healthPort: 0, flags: { speculate: 4 } };
      await using(serve(workers, settings), async (served) => {
        assert.deepEqual((await ask(served)).map(essence), without);
        assert.ok((await counters(served)).accepted > 0);
      });
    }
  } finally {
    await rm(model, { recursive: true, force: true });
  }
});

test("one stream alone: tokens come several a step, events join to the whole text, indices rise by one", () =>
  using(serve(2, { healthPort: 0, flags: { speculate: 8 } }), async (served) => {
    const { client } = served;
    const steps = async () => {
      const { text: all } = await get(served.cluster.health, "/metrics");
      return valueOf(all, "tessera_step_seconds");
    };
    const before = await steps();
    const request: GenerateInput = {
      ...long,
      maxTokens: 200,
      sampling: { allowedTokenIds: [70] },
      topLogprobs: 1,
    };
    const whole = await client.generateOnce(request);
    const taken = (await steps()) - before;
    assert.ok(taken < 60, `${taken} steps for 200 tokens`);
    const { drafts, accepted } = await counters(served);
    assert.ok(accepted > 160 && accepted === drafts, `${accepted} of ${drafts}`);
    const events = [];
    for await (const event of client.generate(request)) events.push(event);
    assert.deepEqual(
      events.map(({ index }) => index),
      events.map((_, i) => BigInt(i)),
    );
    const deltas = events.flatMap(({ kind }) => (kind.case === "delta" ? [kind.value] : []));
    const [choice] = whole.choices;
    assert.equal(deltas.map((delta) => delta.text).join(""), choice?.text);
    assert.deepEqual(
      deltas.flatMap((delta) => delta.tokenIds),
      choice?.tokenIds,
    );
    assert.deepEqual(
      deltas.flatMap((delta) => delta.logprobs.map(({ logprob }) => logprob)),
      choice?.logprobs.map(({ logprob }) => logprob),
    );
    assert.equal(choice?.finished?.reason, FinishReason.LENGTH);
    assert.equal(choice.tokenIds.length, 200);
  }));

test("a constrained answer is guessed too, under the masks of its grammar", () =>
  using(serve(1, { healthPort: 0, flags: { speculate: 4 } }), async (served) => {
    const request: GenerateInput = {
      ...constrained,
      constraint: { kind: { case: "regex", value: "(abc){60}" } },
    };
    const { choices } = await served.client.generateOnce({ ...request, maxTokens: 200 });
    assert.equal(choices[0]?.text, "abc".repeat(60));
    const { accepted } = await counters(served);
    assert.ok(accepted > 40, `${accepted} accepted`);
  }));

test("speculate: more than 16 is refused before anything starts", async () => {
  await assert.rejects(serveInProcess(1, { speculate: 17 }), {
    code: "CONFIGURATION",
    message: /speculate: 17, must be a whole number, 0 to 16/,
  });
});
