/**
 * Prometheus metrics of the coordinator; names and bucket edges follow vLLM's, with the prefix `tessera_`. Each has its
 * row in docs/metrics.md, whose text is the help's.
 */
import { Counter, Gauge, Histogram } from "prom-client";
import type { StepTimes } from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";
import {
  ExemplarHistogram,
  openRegistry,
  type OpenRegistry,
} from "./metrics/exemplar-histogram.js";
import { RequestMetrics } from "./metrics/request-metrics.js";

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
/** Why a request was ended from outside: an Abort or a drain, its client gone, not reading, or out of time. */
export const CUT_CAUSES = ["aborted", "disconnect", "slow_reader", "deadline"] as const;
export type CutCause = (typeof CUT_CAUSES)[number];
const SPAN_FATES = ["exported", "failed", "dropped"] as const;

/** 1, 2, 5, 10, 20, 50, … up to `most`. */
export function oneTwoFive(most: number): number[] {
  const edges: number[] = [];
  for (let power = 1; power <= most; power *= 10)
    edges.push(...[power, 2 * power, 5 * power].filter((edge) => edge <= most));
  return edges;
}

const seconds = (ns: bigint) => Number(ns) / 1e9;

/** What a rank says of each of its steps. */
class RankMetrics {
  private readonly step: Histogram;
  private readonly compute: Histogram;
  private readonly collective: Histogram;
  private readonly wait: Histogram;
  private readonly sent: Counter;

  constructor(registry: OpenRegistry, ranks: readonly string[]) {
    const labelNames = ["rank"];
    const registers = [registry];
    const histogram = (name: string, help: string) =>
      new Histogram({ name, help, labelNames, registers, buckets: STEP });
    this.step = histogram("tessera_rank_step_seconds", "A step on a rank");
    this.compute = histogram("tessera_rank_compute_seconds", "A rank's step without its waiting");
    this.collective = histogram(
      "tessera_rank_collective_seconds",
      "In a step's collectives, waiting included",
    );
    this.wait = histogram("tessera_rank_wait_seconds", "In a step, waiting for peers");
    this.sent = new Counter({
      name: "tessera_rank_exchange_sent_bytes_total",
      help: "Payload sent to peers in steps",
      labelNames,
      registers,
    });
    for (const rank of ranks) {
      for (const each of [this.step, this.compute, this.collective, this.wait]) each.zero({ rank });
      this.sent.inc({ rank }, 0);
    }
  }

  observe(index: number, times: StepTimes): void {
    const rank = { rank: String(index) };
    this.step.observe(rank, seconds(times.computeNs + times.waitNs));
    this.compute.observe(rank, seconds(times.computeNs));
    this.collective.observe(rank, seconds(times.collectiveNs));
    this.wait.observe(rank, seconds(times.waitNs));
    this.sent.inc(rank, Number(times.exchangeBytes));
  }
}

export class CoordinatorMetrics {
  readonly registry = openRegistry();
  readonly requests = this.counter("tessera_requests_total", "Requests accepted");
  readonly promptTokens = this.counter("tessera_prompt_tokens_total", "Prompt tokens accepted");
  readonly generationTokens = this.counter("tessera_generation_tokens_total", "Tokens made");
  readonly timeToFirstToken = new ExemplarHistogram({
    name: "tessera_time_to_first_token_seconds",
    help: "Accepted to first token",
    buckets: FIRST_TOKEN,
    registry: this.registry,
  });
  readonly interTokenLatency = this.histogram(
    "tessera_inter_token_latency_seconds",
    "Between two tokens of a choice",
    INTER_TOKEN,
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
  readonly encodeQueueSeconds = this.histogram(
    "tessera_encode_queue_seconds",
    "A tile's request accepted to the tile given out",
    STEP,
  );
  readonly embeddingQueries = this.counter(
    "tessera_embedding_cache_queries_total",
    "Tiles whose embeddings were asked for",
  );
  readonly embeddingHits = this.counter(
    "tessera_embedding_cache_hits_total",
    "Of these, tiles that were encoded or on their way",
  );
  readonly streamQueries = this.counter(
    "tessera_cross_cache_queries_total",
    "Images whose keys and values for cross-attention were asked for",
  );
  readonly streamHits = this.counter(
    "tessera_cross_cache_hits_total",
    "Of these, images whose keys and values were computed",
  );
  readonly streamsComputed = this.counter(
    "tessera_cross_cache_computed_total",
    "Images whose keys and values for cross-attention were computed",
  );
  readonly imagesDecoded = this.counter(
    "tessera_images_decoded_total",
    "Pictures whose decoding was begun",
  );
  readonly tiles = this.counter("tessera_image_tiles_total", "Tiles of accepted requests");
  readonly tilesReused = this.counter(
    "tessera_image_tiles_reused_total",
    "Tiles not encoded, as an equal one of their request is",
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
  readonly batchTokens = this.histogram("tessera_iteration_tokens", "Tokens of a step", TOKENS);
  readonly nonFinite = this.counter(
    "tessera_non_finite_logits_total",
    "Requests failed by a logit that is not finite",
  );
  readonly lost = this.counter("tessera_lost_requests_total", "Requests ended by a lost rank");
  readonly epochs = this.counter("tessera_epochs_total", "Groups formed");
  readonly failovers = this.counter("tessera_failovers_total", "Groups formed after a loss");
  readonly preemptions = this.counter(
    "tessera_num_preemptions_total",
    "Sequences whose blocks were taken back",
  );
  readonly drafts = this.counter(
    "tessera_spec_decode_num_drafts_total",
    "Slices with guessed tokens that were verified",
  );
  readonly draftTokens = this.counter(
    "tessera_spec_decode_num_draft_tokens_total",
    "Guessed tokens that were computed",
  );
  readonly acceptedTokens = this.counter(
    "tessera_spec_decode_num_accepted_tokens_total",
    "Of these, tokens that were chosen",
  );
  readonly running = this.gauge("tessera_num_requests_running", "Sequences that hold cache blocks");
  readonly waiting = this.gauge(
    "tessera_num_requests_waiting",
    "Requests accepted and not scheduled yet",
  );
  readonly open = this.gauge(
    "tessera_num_requests_open",
    "Requests that have a place: being prepared, waiting or running",
  );
  readonly queuedTokens = this.gauge(
    "tessera_queued_tokens",
    "Prompt tokens of requests that have not begun; while a request is prepared the most that it can have",
  );
  readonly cacheUsage = this.gauge("tessera_kv_cache_usage_ratio", "Cache blocks held, 0 to 1");
  readonly cacheBlocks = this.gauge("tessera_kv_cache_blocks", "Cache blocks of 32 tokens in all");
  readonly cacheConfig = new Gauge({
    name: "tessera_cache_config_info",
    help: "1; its labels are the cache's settings",
    labelNames: ["block_size", "num_gpu_blocks", "cache_dtype", "enable_prefix_caching"],
    registers: [this.registry],
  });
  readonly epoch = this.gauge("tessera_epoch", "The current epoch; 0 before the first");
  readonly ready = this.gauge("tessera_group_ready", "1 when the group serves");
  readonly resident = this.gauge(
    "tessera_coordinator_resident_bytes",
    "Resident memory of the process",
  );
  /** In tokens, at every look-up; the last block's rest, which is never shared, is asked for too. */
  readonly prefixQueries = this.counter(
    "tessera_prefix_cache_queries_total",
    "Prompt tokens whose keys and values were looked for in the prefix cache",
  );
  readonly prefixHits = this.counter(
    "tessera_prefix_cache_hits_total",
    "Of these, tokens that were found there",
  );
  readonly resumed = this.counter(
    "tessera_streams_resumed_total",
    "Streams that a client took up again",
  );
  readonly keptStreams = this.gauge(
    "tessera_kept_streams",
    "Streams that can be resumed, running or ended",
  );
  readonly eventLoopLag = this.gauge(
    "tessera_event_loop_lag_p99_seconds",
    "How late 99 % of the event loop's turns were at most, since the last scrape",
  );
  readonly requestMetrics: RequestMetrics;
  readonly ranks: RankMetrics;
  readonly finished = new Counter({
    name: "tessera_request_success_total",
    help: "Choices by finish reason",
    labelNames: ["finished_reason"],
    registers: [this.registry],
  });
  readonly cut = new Counter({
    name: "tessera_requests_cut_total",
    help: "Requests ended from outside, by cause",
    labelNames: ["cause"],
    registers: [this.registry],
  });
  readonly spans = new Counter({
    name: "tessera_trace_spans_total",
    help: "Spans of traces, by what became of them",
    labelNames: ["fate"],
    registers: [this.registry],
  });
  readonly refused = new Counter({
    name: "tessera_request_refused_total",
    help: "Calls refused or failed, by code",
    labelNames: ["code"],
    registers: [this.registry],
  });
  readonly embeddings = new Gauge({
    name: "tessera_image_embeddings",
    help: "Tiles on the workers or on their way: held by requests, or idle",
    labelNames: ["state"],
    registers: [this.registry],
  });
  readonly crossBlocks = new Gauge({
    name: "tessera_cross_cache_blocks",
    help: "Blocks of 32 rows of the cross-attention cache: held by requests, idle, or free",
    labelNames: ["state"],
    registers: [this.registry],
  });
  readonly heartbeatAge = new Gauge({
    name: "tessera_rank_heartbeat_age_seconds",
    help: "Since a rank's last sign of life",
    labelNames: ["rank"],
    registers: [this.registry],
  });

  /** `ranks`: how many. */
  constructor(facts: { codes: readonly string[]; ranks: number; maxModelLen: number }) {
    const ranks = Array.from({ length: facts.ranks }, (_, rank) => String(rank));
    for (const reason of FINISH_REASONS) this.finished.inc({ finished_reason: reason }, 0);
    for (const cause of CUT_CAUSES) this.cut.inc({ cause }, 0);
    for (const fate of SPAN_FATES) this.spans.inc({ fate }, 0);
    for (const code of facts.codes) this.refused.inc({ code }, 0);
    for (const state of ["held", "idle"]) this.embeddings.set({ state }, 0);
    for (const state of ["held", "idle", "free"]) this.crossBlocks.set({ state }, 0);
    for (const rank of ranks) this.heartbeatAge.set({ rank }, 0);
    this.ranks = new RankMetrics(this.registry, ranks);
    this.requestMetrics = new RequestMetrics(this.registry, {
      latency: LATENCY,
      perToken: INTER_TOKEN,
      tokens: oneTwoFive(facts.maxModelLen),
    });
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
