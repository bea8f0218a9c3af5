/** A cluster under measurement, and streams against it. */
import { TesseraClient } from "@tessera/client";
import { startCluster, type Cluster, type PlacementFlags } from "@tessera/cli";
import { FLAGS } from "../harness/cluster.js";
import { MAX_MODEL_LEN, type BenchModel } from "./models.js";

const DEADLINE_MS = 300_000;
/** A machine that others use too may be slow; a lost rank is no figure. */
const STEP_DEADLINE_MS = 120_000;
const SCRAPE_DEADLINE_MS = 5000;

export interface Serving {
  cluster: Cluster;
  client: TesseraClient;
  stop(): Promise<void>;
}

export interface BenchCluster extends Serving {
  model: BenchModel;
  workers: number;
}

/** A cluster of the model in `dir`. Without `threads` all cores: a worker has its share of them. */
export async function startServing(
  dir: string,
  workers: number,
  options: { flags?: Partial<PlacementFlags>; threads?: number; maxAttempts?: number } = {},
): Promise<Serving> {
  const { flags, maxAttempts, ...rest } = options;
  const cluster = await startCluster({
    model: dir,
    workers,
    port: 0,
    healthPort: 0,
    flags: {
      ...FLAGS,
      maxModelLen: MAX_MODEL_LEN,
      stepDeadlineMs: STEP_DEADLINE_MS,
      ...flags,
    },
    ...rest,
  });
  const client = new TesseraClient({
    addresses: [cluster.address],
    deadlineMs: DEADLINE_MS,
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
  });
  return {
    cluster,
    client,
    async stop() {
      client.close();
      await cluster.stop();
    },
  };
}

export async function startBench(
  model: BenchModel,
  workers: number,
  flags: Partial<PlacementFlags> = {},
): Promise<BenchCluster> {
  return { model, workers, ...(await startServing(model.dir, workers, { flags })) };
}

export interface StreamRequest {
  promptTokens: number;
  maxTokens: number;
  /** Differs between requests, so that no cache of prompts can answer. */
  seed: number;
  onToken?: (index: number) => void;
}

/** When each token arrived, in milliseconds. No stop id ends the stream early. */
export async function stream(client: TesseraClient, request: StreamRequest): Promise<number[]> {
  const { promptTokens, maxTokens, seed, onToken } = request;
  const tokenIds = Array.from(
    { length: promptTokens },
    (_, i) => 10 + (((seed + 1) * 7919 + i * 104_729) % 900),
  );
  const arrivals: number[] = [];
  const events = client.generate({
    tokenIds,
    maxTokens,
    returnTokenIds: true,
    stop: { ignoreEos: true },
  });
  for await (const { kind } of events) {
    if (kind.case !== "delta") continue;
    for (const _ of kind.value.tokenIds) {
      arrivals.push(performance.now());
      onToken?.(arrivals.length);
    }
  }
  if (arrivals.length !== maxTokens)
    throw new Error(`a stream ended after ${arrivals.length} tokens of ${maxTokens}`);
  return arrivals;
}

/** Value of a metric without labels, or of a histogram's sum or count. */
export async function scrape(cluster: Cluster, names: string[]): Promise<number[]> {
  const response = await fetch(`http://${cluster.health}/metrics`, {
    signal: AbortSignal.timeout(SCRAPE_DEADLINE_MS),
  });
  const text = await response.text();
  return names.map((name) => {
    const value = new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`/metrics has no ${name}`);
    return Number(value);
  });
}
