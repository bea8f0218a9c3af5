/** Prompts of NVLM-X and NVLM-H in chunks of every size, from one token to the whole: the same bits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { closeGroup, openGroup } from "../harness/engines.js";
import { assertLikeOracle, GoldenRunner } from "../harness/golden-runner.js";
import { readGoldens } from "../harness/goldens.js";
import { root } from "../harness/paths.js";

for (const variant of ["x", "h"]) {
  const all = await readGoldens(`nvlm-${variant}-tiny.json`);
  /** One image of several tiles, and the most images there are. */
  const most = Math.max(...all.map(({ images }) => images.length));
  const goldens = [
    all.find(({ images, stream }) => images.length === 1 && (stream?.length ?? 0) > 1),
    all.find(({ images }) => images.length === most),
  ];

  for (const golden of goldens) {
    assert.ok(golden !== undefined);
    const { length } = golden.prompt_ids;
    test(`nvlm-${variant}-tiny, ${golden.name}: chunks of 1 to ${length} tokens`, async () => {
      const engines = await openGroup(root(`models/nvlm-${variant}-tiny`), {
        size: 1,
        kvType: "f32",
        selectableIds: 1024,
      });
      try {
        const runner = new GoldenRunner(engines);
        const whole = await runner.greedy(golden, length);
        assertLikeOracle([whole], [golden]);
        for (let chunk = 1; chunk < length; chunk++)
          assert.deepEqual(await runner.greedy(golden, chunk), whole, `chunks of ${chunk}`);
      } finally {
        await closeGroup(engines);
      }
    });
  }
}
