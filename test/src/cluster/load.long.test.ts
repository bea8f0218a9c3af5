/** Many streams at once, some cut off: the others are the same to the bit, and nothing is left behind. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import { Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { essence, serve } from "../harness/cluster.js";
import { rssBytes } from "../harness/memory.js";
import { root } from "../harness/paths.js";
import { seeded } from "../harness/random.js";
import { rankStats } from "../harness/shard-stats.js";

const STREAMS = 64;
const CANCELLED = 20;
const ROUNDS = 3;
/** From the second round to the last, of every process; what allocators and JIT still add then. */
const GROWTH_LIMIT_BYTES = 24 << 20;

const served = await serve(2);
const { client, cluster } = served;
after(served.stop);
const QUESTIONS = ["Read the text.", "What is the name?", "What is the total?"] as const;
const pictures = await Promise.all(
  [1, 2, 3, 4, 5].map((n) => readFile(root(`models/documents/document-0${n}.png`))),
);

/** Three of four with one or two random pictures; some sampled with a seed. */
function randomRequest(random: () => number): GenerateInput {
  const below = (n: number) => Math.floor(random() * n);
  const count = [0, 1, 1, 2][below(4)] ?? 0;
  const images = Array.from({ length: count }, () => ({
    content: {
      case: "image" as const,
      value: { data: pictures[below(pictures.length)] ?? Buffer.alloc(0) },
    },
  }));
  const question = QUESTIONS[below(QUESTIONS.length)] ?? QUESTIONS[0];
  const text = { content: { case: "text" as const, value: question } };
  return {
    messages: [{ role: Role.USER, parts: [...images, text] }],
    maxTokens: 8 + below(40),
    topLogprobs: 2,
    returnTokenIds: true,
    sampling: { temperature: [0, 0.8][below(2)] ?? 0, topP: 0.9, seed: BigInt(below(1000)) },
  };
}

/** Ends at a random event. */
async function cutOff(request: GenerateInput, afterEvents: number): Promise<void> {
  const events = client.generate({ ...request, minTokens: 400, maxTokens: 400 });
  for (let i = 0; i <= afterEvents; i++) await events.next();
  await events.return(undefined);
}

async function untilIdle(): Promise<void> {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const { load } = await client.getCluster();
    assert.ok(load !== undefined);
    const held = load.usedBlocks + load.embeddings + load.runningSequences + load.waitingRequests;
    const stats = await rankStats(client);
    const onRanks = stats.reduce((sum, rank) => sum + rank.sequences + rank.embeddings, 0);
    if (held === 0 && onRanks === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail("blocks, sequences or embeddings are still held");
}

/** One round: every stream that is not cut off is equal to its request alone. → resident bytes of each process. */
async function round(seed: number): Promise<number[]> {
  const random = seeded(seed);
  const requests = Array.from({ length: STREAMS }, () => randomRequest(random));
  const cuts = Array.from({ length: STREAMS }, () => Math.floor(random() * 30));
  const alone: unknown[] = [];
  for (const request of requests.slice(CANCELLED))
    alone.push(essence(await client.generateOnce(request)));
  const [, together] = await Promise.all([
    Promise.all(requests.slice(0, CANCELLED).map((request, i) => cutOff(request, cuts[i] ?? 0))),
    Promise.all(requests.slice(CANCELLED).map((request) => client.generateOnce(request))),
  ]);
  assert.deepEqual(together.map(essence), alone);
  await untilIdle();
  return Promise.all(cluster.pids().map(rssBytes));
}

test("64 streams, 20 cut off: answers as alone, everything released, memory flat over three rounds", async () => {
  const bytes: number[][] = [];
  for (let i = 0; i < ROUNDS; i++) bytes.push(await round(i + 1));
  const [, second = [], last = []] = bytes;
  assert.equal(last.length, 3);
  last.forEach((now, i) => {
    const growth = now - (second[i] ?? 0);
    assert.ok(growth <= GROWTH_LIMIT_BYTES, `process ${i} grew by ${growth} bytes in a round`);
  });
});
