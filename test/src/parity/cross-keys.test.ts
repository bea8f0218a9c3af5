/** Every key of `cross_attention_config` by a model that has it otherwise: the oracle's tokens, the same bits at every width. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CROSS_VARIANTS, writeCrossVariant } from "../harness/cross-variants.js";
import { answersOf, assertLikeOracle } from "../harness/golden-runner.js";
import { readGoldens } from "../harness/goldens.js";

for (const [name, variant] of Object.entries(CROSS_VARIANTS))
  test(`cross_attention_config, ${name} (${variant.base}): the oracle's tokens at ${variant.sizes.join(", ")} ranks`, async () => {
    const goldens = await readGoldens(`cross-variants/${name}.json`);
    const dir = await mkdtemp(join(tmpdir(), "tessera-cross-"));
    try {
      await writeCrossVariant(dir, variant);
      const answers = (size: number, chunk: number) =>
        answersOf(goldens, dir, { size, kvType: "f32", chunk });
      const reference = await answers(1, 1000);
      assertLikeOracle(reference, goldens);
      for (const size of variant.sizes) assert.deepEqual(await answers(size, 13), reference);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
