/** A real Prometheus scrapes a coordinator: it takes OpenMetrics, and finds the exemplars. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { TesseraClient } from "@tessera/client";
import { eventually } from "../harness/eventually.js";
import { freePort } from "../harness/free-port.js";
import { get } from "../harness/http.js";
import { serveInProcess } from "../harness/in-process.js";
import { program } from "../harness/programs.js";

const served = await serveInProcess(1, { healthListen: "127.0.0.1:0" });
const { coordinator } = served;
const folder = await mkdtemp(join(tmpdir(), "tessera-prometheus-"));
const config = join(folder, "prometheus.yml");
const scrape = {
  global: { scrape_interval: "1s", scrape_timeout: "1s" },
  scrape_configs: [
    { job_name: "tessera", static_configs: [{ targets: [coordinator.healthAddress] }] },
  ],
};
// JSON is YAML.
await writeFile(config, JSON.stringify(scrape));
const listen = `127.0.0.1:${await freePort()}`;
const prometheus = spawn(
  program("prometheus"),
  [
    `--config.file=${config}`,
    `--storage.tsdb.path=${join(folder, "data")}`,
    `--web.listen-address=${listen}`,
    "--enable-feature=exemplar-storage",
  ],
  { stdio: "ignore" },
);
after(async () => {
  const ended = once(prometheus, "exit");
  prometheus.kill("SIGTERM");
  await ended;
  await served.close();
  await rm(folder, { recursive: true });
});

interface Answer {
  data: { value?: [number, string]; exemplars?: { labels: Record<string, string> }[] }[];
}
async function ask(path: string): Promise<Answer["data"]> {
  const { status, text } = await get(listen, path).catch(() => ({ status: 0, text: "" }));
  if (status !== 200) return [];
  const { data } = JSON.parse(text) as { data: Answer["data"] | { result: Answer["data"] } };
  return Array.isArray(data) ? data : data.result;
}

test("Prometheus: the scrape is good, counters have their values, and a bucket names its request", async () => {
  const client = new TesseraClient({ addresses: [coordinator.address], deadlineMs: 60_000 });
  await client.generateOnce({ tokenIds: [65, 66], maxTokens: 2, requestId: "seen" });
  client.close();
  await eventually("the counter", async () => {
    const [counted] = await ask("/api/v1/query?query=tessera_requests_total");
    return counted?.value?.[1] === "1";
  });
  // A scrape that is late on a busy machine is followed by one that is not.
  await eventually("a good scrape", async () => {
    const [up] = await ask("/api/v1/query?query=up");
    return up?.value?.[1] === "1";
  });
  const start = Math.floor(Date.now() / 1e3) - 600;
  const name = "tessera_e2e_request_latency_seconds_bucket";
  const path = `/api/v1/query_exemplars?query=${name}&start=${start}&end=${start + 1200}`;
  await eventually("the exemplar", async () => (await ask(path)).length > 0);
  const found = (await ask(path)).flatMap(({ exemplars = [] }) => exemplars);
  assert.ok(found.some(({ labels }) => labels["request_id"] === "seen"));
});
