/** Metrics of a real cluster: what docs/metrics.md says, what promtool accepts, and that they count. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { Role } from "@tessera/client";
import { GRPC_STATUS } from "@tessera/proto";
import { requestOf, serve } from "../harness/cluster.js";
import { readGoldens } from "../harness/goldens.js";
import { eventually } from "../harness/eventually.js";
import { get } from "../harness/http.js";
import { root } from "../harness/paths.js";
import { program } from "../harness/programs.js";
import { families, valueOf, type Family } from "../harness/prometheus.js";

/** One sequence of the longest fits, of 2048 bytes a token on a rank; four long answers at once do not. */
const FLAGS = { maxModelLen: 1024, cacheMemory: 1024 * 2048 };

const goldens = await readGoldens();
const request = await requestOf(goldens[0] ?? assert.fail());
const { cluster, client, stop } = await serve(2, {
  healthPort: 0,
  flags: FLAGS,
});
after(stop);
const scrape = async (address: string | undefined) => (await get(address, "/metrics")).text;
const front = () => scrape(cluster.health);
const worker = (rank: number) => scrape(cluster.workerHealth()[rank]);

async function tableOf(process: string): Promise<string[][]> {
  const page = await readFile(root("docs/metrics.md"), "utf8");
  return page
    .split("\n")
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .filter((cells) => cells[5] === process)
    .map(([, name, type, labels, , , meaning]) => [name, type, labels, meaning] as string[])
    .sort();
}
const rowOf = ({ name, type, labels, help }: Family): string[] => {
  const named = labels.map((label) => `\`${label}\``).join(", ");
  return [`\`${name}\``, type, named === "" ? "–" : named, help];
};

test("docs/metrics.md has what both processes export, and nothing else", async () => {
  assert.deepEqual(
    await tableOf("coordinator"),
    families(await front())
      .map(rowOf)
      .sort(),
  );
  assert.deepEqual(
    await tableOf("worker"),
    families(await worker(1))
      .map(rowOf)
      .sort(),
  );
});

test("promtool check metrics: no word about either process", async () => {
  for (const input of [await front(), await worker(0)]) {
    const checked = spawnSync(program("promtool"), ["check", "metrics"], {
      input,
      encoding: "utf8",
    });
    assert.equal(checked.status, 0, checked.stderr);
    assert.equal(`${checked.stdout}${checked.stderr}`, "");
  }
});

test("names: counters end in _total and nothing else does, and all have the prefix", async () => {
  for (const { name, type } of [...families(await front()), ...families(await worker(0))]) {
    assert.equal(name.endsWith("_total"), type === "counter", name);
    assert.match(name, /^tessera_/);
  }
});

test("every label value is there from the start", async () => {
  const text = await front();
  const valuesOf = (label: string) => {
    const samples = families(text).flatMap((family) => family.samples);
    return [...new Set(samples.flatMap(({ labels }) => labels[label] ?? []))].sort();
  };
  assert.deepEqual(valuesOf("code"), Object.keys(GRPC_STATUS).sort());
  assert.deepEqual(valuesOf("finished_reason"), ["aborted", "error", "length", "stop"]);
  assert.deepEqual(valuesOf("cause"), ["aborted", "deadline", "disconnect", "slow_reader"]);
  assert.deepEqual(valuesOf("fate"), ["dropped", "exported", "failed"]);
  const perRank = families(text).filter(({ labels }) => labels.includes("rank"));
  for (const { name } of perRank)
    for (const rank of ["0", "1"]) assert.ok(valueOf(text, name, { rank }) >= 0, `${name} ${rank}`);
});

test("vLLM's edges: first token, between tokens, whole requests", async () => {
  const text = await front();
  const edgesOf = (name: string) =>
    families(text)
      .find((family) => family.name === name)
      ?.samples.flatMap(({ labels }) => (labels["le"] === undefined ? [] : [labels["le"]]));
  assert.equal(
    edgesOf("tessera_time_to_first_token_seconds")?.join(" "),
    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560 +Inf",
  );
  assert.equal(
    edgesOf("tessera_inter_token_latency_seconds")?.join(" "),
    "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80 +Inf",
  );
  assert.equal(
    edgesOf("tessera_e2e_request_latency_seconds")?.join(" "),
    "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680 +Inf",
  );
});

test("a request of two choices is counted: tokens, first token, time between tokens, tiles, finish", async () => {
  const before = await front();
  const answer = await client.generateOnce({ ...request, n: 2, maxTokens: 4, minTokens: 4 });
  const now = await front();
  const grown = (name: string, labels = {}) =>
    valueOf(now, name, labels) - valueOf(before, name, labels);
  assert.equal(grown("tessera_requests_total"), 1);
  assert.equal(grown("tessera_prompt_tokens_total"), answer.usage?.promptTokens);
  assert.equal(grown("tessera_request_prompt_tokens"), 1);
  assert.equal(grown("tessera_generation_tokens_total"), 8);
  assert.equal(grown("tessera_time_to_first_token_seconds"), 1);
  assert.equal(grown("tessera_inter_token_latency_seconds"), 6);
  assert.equal(grown("tessera_request_queue_time_seconds"), 1);
  assert.equal(grown("tessera_request_encode_time_seconds"), 1);
  for (const part of ["prefill", "decode", "inference"])
    assert.equal(grown(`tessera_request_${part}_time_seconds`), 1, part);
  assert.equal(grown("tessera_request_time_per_output_token_seconds"), 1);
  assert.equal(grown("tessera_request_params_n_sum"), 2);
  assert.equal(grown("tessera_request_params_max_tokens_sum"), 4);
  assert.equal(grown("tessera_request_max_num_generation_tokens_sum"), 4);
  assert.equal(grown("tessera_request_generation_tokens_sum"), 8);
  assert.equal(grown("tessera_image_tiles_total"), answer.usage?.tiles);
  assert.equal(grown("tessera_request_success_total", { finished_reason: "length" }), 2);
  await assert.rejects(client.generateOnce({ ...request, n: 0 }));
  assert.equal(
    valueOf(await front(), "tessera_request_refused_total", { code: "INVALID_ARGUMENT" }),
    1,
  );
});

test("a prompt whose blocks are known: the tokens that its prefill computed are those that were not", async () => {
  const name = "tessera_request_prefill_kv_computed_tokens";
  const tokenIds = Array.from({ length: 100 }, (_, i) => 40 + (i % 60));
  const computed = async () => {
    const sumOf = async () => valueOf(await front(), `${name}_sum`);
    const before = await sumOf();
    const { usage } = await client.generateOnce({ tokenIds, n: 2, maxTokens: 1 });
    return [(await sumOf()) - before, usage?.cachedTokens];
  };
  assert.deepEqual(await computed(), [100, 0]);
  assert.deepEqual(await computed(), [4, 96]);
});

test("the cache's settings are labels of one figure, as vLLM has them", async () => {
  const text = await front();
  const blocks = String(valueOf(text, "tessera_kv_cache_blocks"));
  const labels = { block_size: "32", num_gpu_blocks: blocks, cache_dtype: "f32" };
  const all = { ...labels, enable_prefix_caching: "True" };
  assert.equal(valueOf(text, "tessera_cache_config_info", all), 1);
});

test("the same picture twice in a request: its tiles count as reused", async () => {
  const before = valueOf(await front(), "tessera_image_tiles_reused_total");
  const value = { data: await readFile(root("models/documents/document-02.png")) };
  const image = { content: { case: "image" as const, value } };
  const messages = [{ role: Role.USER, parts: [image, image] }];
  const answer = await client.generateOnce({ messages, maxTokens: 1 });
  const reused = valueOf(await front(), "tessera_image_tiles_reused_total") - before;
  assert.equal(reused, (answer.usage?.tiles ?? NaN) / 2);
});

test("per rank: step, compute, collective and wait times and bytes; the worker says the same", async () => {
  const stepsOf = async (rank: number) => valueOf(await worker(rank), "tessera_worker_steps_total");
  await eventually("both sides have heard of the last step", async () => {
    const text = await front();
    const heard = ["0", "1"].map((rank) => valueOf(text, "tessera_rank_step_seconds", { rank }));
    const idle = valueOf(text, "tessera_kv_cache_usage_ratio") === 0;
    return idle && heard[0] === (await stepsOf(0)) && heard[1] === (await stepsOf(1));
  });
  const ours = await front();
  for (const rank of [0, 1]) {
    const theirs = await worker(rank);
    const labels = { rank: String(rank) };
    const sums = ["step", "compute", "collective", "wait"].map((part) => {
      const sum = valueOf(ours, `tessera_rank_${part}_seconds_sum`, labels);
      assert.equal(valueOf(theirs, `tessera_worker_${part}_seconds_sum`), sum, part);
      assert.ok(sum > 0, part);
      return sum;
    });
    const [step = 0, compute = 0, collective = 0, wait = 0] = sums;
    assert.ok(Math.abs(step - compute - wait) < 1e-6, sums.join());
    assert.ok(collective < step, sums.join());
    const sent = valueOf(ours, "tessera_rank_exchange_sent_bytes_total", labels);
    assert.equal(valueOf(theirs, "tessera_worker_exchange_sent_bytes_total"), sent);
    assert.ok(sent > 0);
  }
});

test("preemptions are counted, and go on over a new epoch with failovers and lost requests", async () => {
  const long = { ...request, maxTokens: 250, minTokens: 250 };
  const salts = ["a", "b", "c", "d", "e", "f"];
  await Promise.all(
    salts.map((cacheSalt) => client.generateOnce({ ...long, cacheSalt }).then(() => undefined)),
  );
  const preempted = valueOf(await front(), "tessera_num_preemptions_total");
  assert.ok(preempted > 0);
  const stream = client.generate({ ...request, maxTokens: 600, minTokens: 600 });
  const ended = (async () => {
    for await (const { kind } of stream)
      if (kind.case === "started") process.kill(cluster.workerPids()[1] ?? 0, "SIGKILL");
  })();
  await assert.rejects(ended, /rank 1/);
  await eventually("the second group", async () => valueOf(await front(), "tessera_epoch") > 1);
  const now = await front();
  assert.equal(valueOf(now, "tessera_num_preemptions_total"), preempted);
  assert.equal(valueOf(now, "tessera_failovers_total"), 1);
  assert.equal(valueOf(now, "tessera_epochs_total"), 2);
  assert.equal(valueOf(now, "tessera_lost_requests_total"), 1);
  assert.equal(valueOf(now, "tessera_group_ready"), 1);
});
