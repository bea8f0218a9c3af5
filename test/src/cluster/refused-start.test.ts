/** What cannot be served ends `tessera up` at once, with the reason. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

const up = (model: string, ...args: string[]) => [
  "up",
  "--model",
  root(model),
  "--port",
  "0",
  ...args,
];

for (const [variant, type] of [
  ["x", "NVLM_X"],
  ["h", "NVLM_H"],
] as const)
  test(`up: ${type} is not served by this version, and says so`, async () => {
    const { code, stderr } = await tessera(up(`models/nvlm-${variant}-tiny`));
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`model_type ${type} is not served by this version`));
  });

test("up: threads and kernels that cannot be are refused before anything waits", async () => {
  const none = await tessera(up("models/nvlm-d-tiny", "--threads", "0"));
  assert.equal(none.code, 1);
  assert.match(none.stderr, /threads: 0, must be 1…1024/);
  const environment = { TESSERA_CPU: "foo" };
  const kernels = await tessera(up("models/nvlm-d-tiny"), { environment });
  assert.equal(kernels.code, 1);
  assert.match(kernels.stderr, /TESSERA_CPU=foo: must be scalar, avx2 or avx512/);
  const level = await tessera(up("models/nvlm-d-tiny", "--log-level", "loud"));
  assert.match(level.stderr, /Allowed choices are trace, debug/);
});
