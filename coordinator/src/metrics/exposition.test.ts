import assert from "node:assert/strict";
import { test } from "node:test";
import { Counter } from "prom-client";
import { ExemplarHistogram, openRegistry } from "./exemplar-histogram.js";
import { prometheusText } from "./exposition.js";

test("prometheusText: counters keep _total in HELP and TYPE, exemplars and the end mark are gone", async () => {
  const registry = openRegistry();
  const counter = new Counter({ name: "a_total", help: "As", registers: [registry] });
  const of = { name: "b_seconds", help: "Bs # {1}", buckets: [1], registry };
  const histogram = new ExemplarHistogram(of);
  counter.inc(2);
  histogram.observe(0.5, { request_id: "r-1" });
  const open = await registry.metrics();
  assert.match(open, /^# TYPE a counter\na_total 2$/m);
  assert.match(open, /^b_seconds_bucket\{le="1"\} 1 # \{request_id="r-1"\} 0\.5 \d+\.\d+$/m);
  assert.match(open, /# EOF\n$/);
  const plain = [
    "# HELP a_total As",
    "# TYPE a_total counter",
    "a_total 2",
    "# HELP b_seconds Bs # {1}",
    "# TYPE b_seconds histogram",
    'b_seconds_bucket{le="1"} 1',
    'b_seconds_bucket{le="+Inf"} 1',
    "b_seconds_sum 0.5",
    "b_seconds_count 1",
    "",
  ];
  assert.equal(prometheusText(open), plain.join("\n"));
  assert.equal(prometheusText(await registry.metrics()), plain.join("\n"));
});

test("an observation without a request has no exemplar, and the one before stays", async () => {
  const registry = openRegistry();
  const of = { name: "b_seconds", help: "Bs", buckets: [1], registry };
  const histogram = new ExemplarHistogram(of);
  histogram.observe(0.25);
  assert.doesNotMatch(await registry.metrics(), / # \{/);
  histogram.observe(0.5, { request_id: "x".repeat(64), trace_id: "0".repeat(32) });
  histogram.observe(0.75);
  assert.match(await registry.metrics(), /trace_id="0{32}"\} 0\.5 /);
});
