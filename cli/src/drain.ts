/** The end of `tessera up`: running requests are answered first. */
import type { Cluster } from "./supervisor.js";

async function drain(cluster: Cluster): Promise<void> {
  try {
    await cluster.drain();
  } catch (error) {
    process.stderr.write(`not drained: ${error instanceof Error ? error.message : "unknown"}\n`);
  }
}

/** On the first SIGINT or SIGTERM nothing new is taken and what runs ends; a second one stops at once. */
export function drainOnSignal(cluster: Cluster): void {
  let signals = 0;
  const stop = () => void cluster.stop().finally(() => process.exit(0));
  const onSignal = () => {
    signals++;
    if (signals > 2) return;
    if (signals === 2) return stop();
    process.stderr.write("draining; again: stops at once\n");
    void drain(cluster).then(stop);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
}
