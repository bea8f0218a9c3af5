/** Clusters with int8 and int4 weights: the same bits at every width, on mixed kinds of CPU, alone or among others. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateInput } from "@tessera/client";
import { cpuKind } from "@tessera/native/engine";
import { essence, requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";

const goldens = (await readGoldens("nvlm-d-tiny.json")).slice(0, 4);
const requests: GenerateInput[] = await Promise.all(goldens.map(requestOf));
const KINDS = ["scalar", "avx2", "avx512"];
const here = KINDS.slice(0, KINDS.indexOf(cpuKind()) + 1);

interface Way {
  workers: number;
  weights: "bf16" | "int8" | "int4";
  /** Of rank i: the (i mod length)-th. */
  kinds: string[];
}

/** Weight bytes of all ranks, and the answers: each request alone, or all at once. */
async function answersOf({ workers, weights, kinds }: Way, together: boolean) {
  const environment = (rank: number) => ({ TESSERA_CPU: kinds[rank % kinds.length] ?? "scalar" });
  const { client, stop } = await serve(workers, { flags: { weights }, environment });
  try {
    const { placement, ranks } = await client.getCluster();
    assert.equal(placement?.weightType, weights);
    const bytes = ranks.reduce((sum, rank) => sum + Number(rank.weightBytes), 0);
    const ask = (request: GenerateInput) => client.generateOnce(request).then(essence);
    if (together) return { bytes, answers: await Promise.all(requests.map(ask)) };
    const answers = [];
    for (const request of requests) answers.push(await ask(request));
    return { bytes, answers };
  } finally {
    await stop();
  }
}

const plain = await answersOf({ workers: 1, weights: "bf16", kinds: here.slice(-1) }, true);

for (const weights of ["int8", "int4"] as const)
  test(`${weights}: 1, 2 and 4 workers of every kind of CPU give the same bits, others than bf16`, async () => {
    const alone = await answersOf({ workers: 1, weights, kinds: ["scalar"] }, false);
    assert.notDeepEqual(alone.answers, plain.answers);
    assert.ok(alone.bytes < plain.bytes, `${alone.bytes} bytes, bf16 ${plain.bytes}`);
    for (const kind of here) {
      const { answers } = await answersOf({ workers: 1, weights, kinds: [kind] }, true);
      assert.deepEqual(answers, alone.answers, kind);
    }
    for (const workers of [2, 4]) {
      const { answers } = await answersOf({ workers, weights, kinds: here }, true);
      assert.deepEqual(answers, alone.answers, `${workers} workers`);
    }
  });
