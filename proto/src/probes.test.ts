import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, test } from "node:test";
import { followLiveness, startProbes } from "./probes.js";

const state = { live: true, ready: true, started: true };
const metrics = {
  contentType: "text/x-metrics",
  text: () => Promise.resolve("a 1\n"),
  openMetrics: { contentType: "text/x-open", text: () => Promise.resolve("a 1\n# EOF\n") },
};
const probes = await startProbes(
  { host: "127.0.0.1", port: 0 },
  { live: () => state.live, ready: () => state.ready, started: () => state.started },
  metrics,
);
after(() => probes.close());

const page = (path: string, headers: Record<string, string> = {}) =>
  fetch(`http://${probes.address}${path}`, { headers, signal: AbortSignal.timeout(10_000) });

test("probes: each page says its own state, the query aside", async () => {
  Object.assign(state, { live: false, ready: true, started: false });
  const statuses = ["/livez", "/readyz?verbose", "/startupz", "/other"].map(
    async (path) => (await page(path)).status,
  );
  assert.deepEqual(await Promise.all(statuses), [503, 200, 503, 404]);
});

test("probes: metrics come with their content type, and a failure to make them is 500", async () => {
  const good = await page("/metrics");
  assert.equal(good.headers.get("content-type"), "text/x-metrics");
  assert.equal(await good.text(), "a 1\n");
  metrics.text = () => Promise.reject(new Error("no counter"));
  const bad = await page("/metrics");
  assert.equal(bad.status, 500);
  assert.equal(await bad.text(), "no counter\n");
});

test("probes: who accepts OpenMetrics gets it", async () => {
  const accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5,*/*;q=0.1";
  const open = await page("/metrics", { accept });
  assert.equal(open.headers.get("content-type"), "text/x-open");
  assert.equal(await open.text(), "a 1\n# EOF\n");
});

test("probes: a stuck main thread is 503", () => {
  const script = `const r = await fetch("http://${probes.address}/livez"); console.log(r.status, await r.text())`;
  state.live = true;
  // This thread stands still until the other process has its answer.
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    timeout: 20_000,
  });
  assert.equal(said.toString().trim(), "503 the process has not answered for 2000 ms");
});

test("probes: an address that cannot be had is refused with its reason", async () => {
  const listen = { host: "127.0.0.1", port: Number(probes.address.split(":")[1]) };
  const none = { live: () => true, ready: () => true, started: () => true };
  await assert.rejects(startProbes(listen, none, metrics), /health-listen: .*EADDRINUSE/);
});

test("liveness: the empty name of grpc.health.v1 follows it, each change said once", async () => {
  const said: string[] = [];
  let live = false;
  await new Promise<void>((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error("not followed")), 10_000);
    const end = followLiveness(
      {
        setStatus(service, status) {
          said.push(`${service}:${status}`);
          live = true;
          if (status === "NOT_SERVING") return;
          end();
          clearTimeout(deadline);
          resolve();
        },
      },
      () => live,
    );
  });
  assert.deepEqual(said, [":NOT_SERVING", ":SERVING"]);
});
