/** Prometheus metrics of the coordinator; names and bucket edges follow vLLM's, with the prefix `tessera_`. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

const STEP = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const FIRST_TOKEN = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
const INTER_TOKEN = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const LATENCY = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
const TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const TILES = [1, 2, 4, 8, 16, 32, 64];
export const FINISH_REASONS = ["stop", "length", "aborted", "error"] as const;

export class CoordinatorMetrics {
  readonly registry = new Registry();
  readonly timeToFirstToken = this.histogram(
    "tessera_time_to_first_token_seconds",
    "Accepted to first token",
    FIRST_TOKEN,
  );
  readonly interTokenLatency = this.histogram(
    "tessera_inter_token_latency_seconds",
    "Between two tokens of a request",
    INTER_TOKEN,
  );
  readonly requestSeconds = this.histogram(
    "tessera_e2e_request_latency_seconds",
    "Accepted to done",
    LATENCY,
  );
  readonly queueSeconds = this.histogram(
    "tessera_request_queue_time_seconds",
    "Accepted to first scheduled",
    LATENCY,
  );
  readonly encodeSeconds = this.histogram(
    "tessera_encode_seconds",
    "A batch of tiles given out to embeddings ready",
    STEP,
  );
  readonly encodeTiles = this.histogram(
    "tessera_encode_batch_tiles",
    "Tiles of an encode batch",
    TILES,
  );
  readonly stepSeconds = this.histogram(
    "tessera_step_seconds",
    "Plan sent to all ranks' results",
    STEP,
  );
  readonly coordinatorSeconds = this.histogram(
    "tessera_coordinator_step_seconds",
    "The coordinator's own work of a step",
    STEP,
  );
  readonly batchTokens = this.histogram(
    "tessera_iteration_tokens_total",
    "Tokens of a step",
    TOKENS,
  );
  readonly promptTokens = this.counter("tessera_prompt_tokens_total", "Prompt tokens accepted");
  readonly generationTokens = this.counter("tessera_generation_tokens_total", "Tokens made");
  readonly nonFinite = this.counter(
    "tessera_non_finite_logits_total",
    "Requests failed by a logit that is not finite",
  );
  readonly lost = this.counter("tessera_lost_requests_total", "Requests ended by a lost rank");
  readonly epochs = this.counter("tessera_epochs_total", "Epochs formed");
  readonly preemptions = this.gauge("tessera_preemptions", "Preemptions of the current epoch");
  readonly running = this.gauge("tessera_num_requests_running", "Sequences that hold cache blocks");
  readonly waiting = this.gauge(
    "tessera_num_requests_waiting",
    "Requests accepted and not scheduled yet",
  );
  readonly cacheUsage = this.gauge("tessera_kv_cache_usage_ratio", "Cache blocks held, 0 to 1");
  readonly embeddings = this.gauge("tessera_image_embeddings", "Tiles held or on their way");
  readonly epoch = this.gauge("tessera_epoch", "The current epoch");
  readonly ready = this.gauge("tessera_group_ready", "1 when the group serves");
  readonly finished = new Counter({
    name: "tessera_request_success_total",
    help: "Choices by finish reason",
    labelNames: ["finished_reason"],
    registers: [this.registry],
  });
  readonly refused = new Counter({
    name: "tessera_request_refused_total",
    help: "Requests refused or failed, by code",
    labelNames: ["code"],
    registers: [this.registry],
  });
  readonly heartbeatAge = new Gauge({
    name: "tessera_rank_last_heard_seconds",
    help: "Since a rank's last sign of life",
    labelNames: ["rank"],
    registers: [this.registry],
  });

  constructor(codes: readonly string[], size: number) {
    for (const reason of FINISH_REASONS) this.finished.inc({ finished_reason: reason }, 0);
    for (const code of codes) this.refused.inc({ code }, 0);
    for (let rank = 0; rank < size; rank++) this.heartbeatAge.set({ rank: String(rank) }, 0);
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }
  private counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.registry] });
  }
  private gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] });
  }
}
