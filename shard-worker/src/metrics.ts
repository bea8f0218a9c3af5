/**
 * Prometheus metrics of one rank. Base units; counters end in `_total`. Each has its row in docs/metrics.md, whose text
 * is the help's.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { StepOutcome } from "@tessera/native/engine";

const SECONDS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const seconds = (ns: bigint) => Number(ns) / 1e9;

export class WorkerMetrics {
  readonly registry = new Registry();
  private readonly stepSeconds = this.histogram("tessera_worker_step_seconds", "A step");
  private readonly computeSeconds = this.histogram(
    "tessera_worker_compute_seconds",
    "A step without its waiting",
  );
  private readonly collectiveSeconds = this.histogram(
    "tessera_worker_collective_seconds",
    "In a step's collectives, waiting included",
  );
  private readonly waitSeconds = this.histogram(
    "tessera_worker_wait_seconds",
    "In a step, waiting for peers",
  );
  private readonly encodeSeconds = this.histogram("tessera_worker_encode_seconds", "An encode");
  private readonly exchangeBytes = this.counter(
    "tessera_worker_exchange_sent_bytes_total",
    "Payload sent to peers in steps",
  );
  private readonly steps = this.counter("tessera_worker_steps_total", "Steps computed");
  private readonly tiles = this.counter("tessera_worker_tiles_total", "Tiles encoded");
  readonly errors = this.counter("tessera_worker_step_errors_total", "Steps that failed");
  readonly epochs = this.counter("tessera_worker_epochs_total", "Epochs joined");
  readonly rank = this.gauge("tessera_worker_rank", "The rank held; -1 without one");
  readonly epoch = this.gauge("tessera_worker_epoch", "The epoch of the group; 0 before the first");
  readonly sharedPeers = this.gauge(
    "tessera_worker_shared_memory_peers",
    "Peers whose collectives go through shared memory",
  );
  readonly sequences = this.gauge("tessera_worker_sequences", "Sequences held");
  readonly embeddings = this.gauge("tessera_worker_embeddings", "Tiles whose embeddings are held");
  readonly streams = this.gauge(
    "tessera_worker_streams",
    "Images whose keys and values for cross-attention are held",
  );
  readonly resident = this.gauge("tessera_worker_resident_bytes", "Resident memory of the process");

  constructor() {
    this.rank.set(-1);
  }

  observeStep(outcome: Omit<StepOutcome, "rows" | "captured">): void {
    this.steps.inc();
    this.stepSeconds.observe(seconds(outcome.computeNs + outcome.waitNs));
    this.computeSeconds.observe(seconds(outcome.computeNs));
    this.collectiveSeconds.observe(seconds(outcome.collectiveNs));
    this.waitSeconds.observe(seconds(outcome.waitNs));
    this.exchangeBytes.inc(Number(outcome.exchangeBytes));
  }
  observeEncode(tileCount: number, computeNs: bigint): void {
    this.tiles.inc(tileCount);
    this.encodeSeconds.observe(seconds(computeNs));
  }

  private histogram(name: string, help: string): Histogram {
    return new Histogram({ name, help, buckets: SECONDS, registers: [this.registry] });
  }
  private counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.registry] });
  }
  private gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] });
  }
}
