/** What cannot be served ends `tessera up` at once, with the reason. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { tessera } from "../harness/command.js";
import { root } from "../harness/paths.js";

const up = (...args: string[]) => [
  "up",
  "--model",
  root("models/nvlm-d-tiny"),
  "--port",
  "0",
  "--no-http",
  ...args,
];

test("up: threads and kernels that cannot be are refused before anything waits", async () => {
  const none = await tessera(up("--threads", "0"));
  assert.equal(none.code, 1);
  assert.match(none.stderr, /threads: 0, must be 1…1024/);
  const environment = { TESSERA_CPU: "foo" };
  const kernels = await tessera(up(), { environment });
  assert.equal(kernels.code, 1);
  assert.match(kernels.stderr, /TESSERA_CPU=foo: must be scalar, avx2 or avx512/);
  const level = await tessera(up("--log-level", "loud"));
  assert.match(level.stderr, /Allowed choices are trace, debug/);
});

const refused: [string, string[], RegExp][] = [
  [
    "a placement that there is not",
    ["--vision", "mirror"],
    /--vision: "mirror": Allowed choices are replicate, tensor, auto/,
  ],
  [
    "a placement beside vision workers",
    ["--vision", "tensor", "--vision-workers", "1"],
    /vision tensor beside vision-workers 1: the encoder lies on one or the other/,
  ],
  ["no vision worker", ["--vision-workers", "0"], /vision-workers 0: must be 1…64/],
  ["too many vision workers", ["--vision-workers", "65"], /vision-workers 65: must be 1…64/],
];
for (const [name, args, message] of refused)
  test(`up: ${name} is refused`, async () => {
    const { code, stderr } = await tessera(up(...args));
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
  });
