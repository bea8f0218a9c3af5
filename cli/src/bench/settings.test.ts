import assert from "node:assert/strict";
import { test } from "node:test";
import { readSettings, type BenchFlags } from "./settings.js";

const FLAGS: BenchFlags = {
  server: "127.0.0.1:4000",
  endpoint: "chat",
  serverKind: "auto",
  temperature: 0,
  burstiness: 1,
  warmup: 8,
  requestTimeout: 600,
  seed: 0,
  inputLen: "512",
  outputLen: "128",
  imageShare: 0,
  imageSize: "448x448",
  imageCount: 16,
  prefixShare: 0,
  prefixLen: 0,
  prefixCount: 1,
};
const { server: _server, ...URL_FLAGS } = FLAGS;

test("readSettings: without a load all prompts are sent at once", () => {
  const { points, promptCount, durationMs } = readSettings(FLAGS);
  assert.deepEqual(points, [
    { value: undefined, mode: { kind: "open", rate: Infinity, burstiness: 1 } },
  ]);
  assert.deepEqual([promptCount, durationMs], [200, undefined]);
});

test("readSettings: lengths, sizes, a sweep, a duration", () => {
  const settings = readSettings({
    ...FLAGS,
    inputLen: "100:20",
    imageSize: "640x480,32x16",
    sweep: ["rates", "0.5,2"],
    burstiness: 2,
    duration: 1.5,
  });
  assert.deepEqual(settings.workload.inputLength, { mean: 100, spread: 20 });
  assert.deepEqual(settings.pictureSizes, [
    { width: 640, height: 480 },
    { width: 32, height: 16 },
  ]);
  assert.deepEqual(
    settings.points,
    [0.5, 2].map((value) => ({ value, mode: { kind: "open", rate: value, burstiness: 2 } })),
  );
  assert.deepEqual([settings.promptCount, settings.durationMs], [Infinity, 1500]);
});

test("readSettings: a sweep of concurrency is of closed loops", () => {
  const { points } = readSettings({ ...FLAGS, sweep: ["concurrency", "1,16"] });
  assert.deepEqual(
    points.map(({ mode }) => mode),
    [1, 16].map((concurrency) => ({ kind: "closed", concurrency })),
  );
});

for (const [change, message] of [
  [{ baseUrl: "http://127.0.0.1:1/v1" }, /--base-url, --server: give one/],
  [{ server: "4000" }, /--server 4000: must be host:port/],
  [{ inputLen: "0" }, /--input-len 0: must be tokens/],
  [{ inputLen: "8:8" }, /--input-len 8:8/],
  [{ inputLen: "many" }, /--input-len many/],
  [{ outputLen: "2000000" }, /--output-len 2000000/],
  [{ imageSize: "640" }, /--image-size 640: must be WIDTHxHEIGHT/],
  [{ imageSize: "0x5" }, /--image-size 0x5/],
  [{ imageSize: "9000x9000" }, /each 1 to 8192/],
  [{ requestRate: "0" }, /--request-rate 0: must be requests a second above 0, or inf/],
  [{ requestRate: "Infinity" }, /--request-rate Infinity/],
  [{ requestRate: "fast" }, /--request-rate fast/],
  [{ requestRate: "2", concurrency: 2 }, /closed or open, give one/],
  [{ sweep: ["rate", "1"] }, /--sweep rate 1: must be rates or concurrency/],
  [{ sweep: ["rates"] }, /--sweep rates: must be/],
  [{ sweep: ["rates", "1,,2"] }, /--sweep rates 1,,2: must be numbers above 0/],
  [{ sweep: ["rates", "inf"] }, /must be numbers above 0/],
  [{ sweep: ["concurrency", "1.5"] }, /must be whole numbers, 1 to 4096/],
  [{ sweep: ["rates", Array(65).fill(1).join(",")] }, /has 65 points, at most 64/],
  [{ sweep: ["rates", "1"], concurrency: 2 }, /--sweep sets the load/],
  [{ duration: 5 }, /--duration: needs --num-prompts, --request-rate below inf/],
  [{ goodput: ["fast"] }, /--goodput fast/],
  [{ plot: "a.pdf" }, /--plot a.pdf: must end in .svg or .png/],
  [{ details: true }, /--details: needs --json/],
  [{ prefixShare: 0.5 }, /--prefix-share: needs --prefix-len/],
  [{ dataset: "a", imageShare: 1 }, /--dataset: its lines are sent as they are/],
  [{ endpoint: "completions" }, /--endpoint: of --base-url/],
  [{ serverKind: "vllm" }, /--server-kind: of --base-url/],
  [{ extraBody: "{}" }, /--extra-body: of --base-url/],
] as [Partial<BenchFlags>, RegExp][])
  test(`readSettings: ${JSON.stringify(change).slice(0, 60)} is refused`, () => {
    assert.throws(() => readSettings({ ...FLAGS, ...change }), message);
  });

for (const [change, message] of [
  [{}, /give --base-url of an OpenAI-compatible server, or --server/],
  [{ baseUrl: "127.0.0.1:8000" }, /--base-url 127.0.0.1:8000: must be a URL/],
  [{ baseUrl: "ftp://a/v1" }, /must be a URL/],
  [{ baseUrl: "http://user:pass@a/v1" }, /must have no user, password or query/],
  [{ baseUrl: "http://a/v1", tlsCa: "ca.pem" }, /--base-url is plain http:/],
  [{ baseUrl: "http://a/v1", extraBody: "[]" }, /--extra-body \[\]: must be a JSON object/],
  [
    { baseUrl: "http://a/v1", endpoint: "completions", imageShare: 1 },
    /completions take no pictures/,
  ],
] as [Partial<BenchFlags>, RegExp][])
  test(`readSettings: ${JSON.stringify(change)} without --server is refused`, () => {
    assert.throws(() => readSettings({ ...URL_FLAGS, ...change }), message);
  });

test("readSettings: all that is wrong is said at once", () => {
  const flags = { ...FLAGS, inputLen: "x", outputLen: "y", plot: "z", goodput: ["w"] };
  assert.throws(
    () => readSettings(flags),
    (error: Error) => {
      assert.equal(error.message.split("\n").length, 4);
      return true;
    },
  );
});
