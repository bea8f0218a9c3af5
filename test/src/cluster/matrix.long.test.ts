/** The same bits at every width, kind of CPU, number of threads and chunk: pairwise, or all with TESSERA_FULL. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuKind } from "@tessera/native/engine";
import { essence, readGoldens, requestOf, serve } from "../harness/cluster.js";

interface Case {
  workers: number;
  kinds: string[];
  threads: number;
  chunk: number;
}

const goldens = (await readGoldens()).slice(0, 8);
const requests = await Promise.all(goldens.map(requestOf));
const WIDTHS = [1, 2, 4, 8];
/** Those that this machine has; the last is a mixed group. */
const HERE = ["scalar", "avx2", "avx512"].slice(
  0,
  ["scalar", "avx2", "avx512"].indexOf(cpuKind()) + 1,
);
const KINDS = [...HERE.map((kind) => [kind]), [cpuKind(), "scalar"]];

const all: Case[] = WIDTHS.flatMap((workers) =>
  KINDS.flatMap((kinds) =>
    [1, 2].flatMap((threads) => [48, 2048].map((chunk) => ({ workers, kinds, threads, chunk }))),
  ),
);
/** Every pair of a width with a kind, threads and chunks alternating. */
const cover = WIDTHS.flatMap((workers, w) =>
  KINDS.map((kinds, k): Case => ({
    workers,
    kinds,
    threads: 1 + ((w + k) % 2),
    chunk: (w + 2 * k) % 3 === 0 ? 48 : 2048,
  })),
);
const cases = process.env["TESSERA_FULL"] === undefined ? cover : all;

async function answers(one: Case, kv: "f32" | "bf16") {
  const served = await serve(one.workers, {
    threads: one.threads,
    flags: { kv, maxBatchedTokens: one.chunk },
    environment: (rank) => ({ TESSERA_CPU: one.kinds[rank % one.kinds.length] ?? "scalar" }),
  });
  try {
    return (await Promise.all(requests.map((request) => served.client.generateOnce(request)))).map(
      essence,
    );
  } finally {
    await served.stop();
  }
}

for (const kv of ["f32", "bf16"] as const) {
  let reference: Awaited<ReturnType<typeof answers>> | undefined;
  for (const one of cases) {
    const kinds = `${one.workers} workers, ${one.kinds.join("+")}, ${one.threads} threads`;
    test(`${kv}, ${kinds}, chunks of ${one.chunk}: the same bits`, async () => {
      const got = await answers(one, kv);
      reference ??= got;
      assert.deepEqual(got, reference);
    });
  }
}
