/**
 * int8 and int4 weights through engines in one process: the NumPy reference's tokens (test/oracle/quantised.py), and the
 * same bits at every width, chunk and kind of CPU.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { cpuKind } from "@tessera/native/engine";
import { answersOf } from "../harness/golden-runner.js";
import { readGoldens, type Golden } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

interface QuantisedGoldens {
  /** Of log-probabilities; derived where the file is made. */
  tolerance: number;
  requests: Golden[];
}

const KINDS = ["scalar", "avx2", "avx512"];
/** Those that this machine has. */
const here = KINDS.slice(0, KINDS.indexOf(cpuKind()) + 1);
const WHOLE = 512;

async function quantisedGoldens(weightType: string): Promise<QuantisedGoldens> {
  const text = await readFile(
    root(`test/goldens/quantised/nvlm-d-tiny-${weightType}.json`),
    "utf8",
  );
  return JSON.parse(text) as QuantisedGoldens;
}

async function withKind<T>(kind: string, work: () => Promise<T>): Promise<T> {
  const before = process.env["TESSERA_CPU"];
  process.env["TESSERA_CPU"] = kind;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env["TESSERA_CPU"];
    else process.env["TESSERA_CPU"] = before;
  }
}

for (const weightType of ["int8", "int4"] as const) {
  test(`${weightType}: greedy ids are the NumPy reference's, log-probabilities within its tolerance`, async () => {
    const { tolerance, requests } = await quantisedGoldens(weightType);
    assert.ok(requests.length >= 8);
    const way = { size: 1, kvType: "f32", weightType, chunk: WHOLE } as const;
    const answers = await answersOf(requests, root("models/nvlm-d-tiny"), way);
    requests.forEach((golden, i) => {
      assert.deepEqual(answers[i]?.ids, golden.greedy_ids, golden.name);
      golden.logprobs.forEach((logprob, k) => {
        const got = answers[i]?.logprobs[k] ?? NaN;
        assert.ok(Math.abs(got - logprob) <= tolerance, `${golden.name} ${k}: ${got} ${logprob}`);
      });
    });
  });

  for (const variant of ["d", "x", "h"])
    test(`nvlm-${variant}-tiny, ${weightType}: 1, 2, 4 and 8 engines, chunks of 7, every kind of CPU: the same bits`, async () => {
      const goldens = (await readGoldens(`nvlm-${variant}-tiny.json`)).slice(0, 3);
      const answers = (kind: string, size: number, chunk: number) =>
        withKind(kind, () =>
          answersOf(goldens, root(`models/nvlm-${variant}-tiny`), {
            size,
            kvType: "f32",
            weightType,
            chunk,
          }),
        );
      const alone = await answers("scalar", 1, WHOLE);
      for (const kind of here) {
        assert.deepEqual(await answers(kind, 2, 7), alone, kind);
        assert.deepEqual(await answers(kind, 4, WHOLE), alone, kind);
      }
      assert.deepEqual(await answers(cpuKind(), 8, WHOLE), alone);
    });
}
