/** Prometheus metrics of one rank. Base units; counters end in `_total`. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

const SECONDS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

export class WorkerMetrics {
  readonly registry = new Registry();
  readonly stepSeconds = this.histogram(
    "tessera_worker_step_seconds",
    "Time of a step on this rank",
  );
  readonly computeSeconds = this.histogram(
    "tessera_worker_compute_seconds",
    "Part of a step this rank computed",
  );
  readonly waitSeconds = this.histogram(
    "tessera_worker_collective_wait_seconds",
    "Part of a step this rank waited for its peers",
  );
  readonly encodeSeconds = this.histogram("tessera_worker_encode_seconds", "Time of an encode");
  readonly exchangeBytes = this.counter(
    "tessera_worker_exchange_sent_bytes_total",
    "Payload bytes sent to peers",
  );
  readonly steps = this.counter("tessera_worker_steps_total", "Steps computed");
  readonly tiles = this.counter("tessera_worker_tiles_total", "Tiles encoded");
  readonly errors = this.counter("tessera_worker_step_errors_total", "Steps that failed");
  readonly epochs = this.counter("tessera_worker_epochs_total", "Epochs joined");
  readonly rank = this.gauge("tessera_worker_rank", "The rank held; -1 without one");
  readonly epoch = this.gauge("tessera_worker_epoch", "The epoch of the group");
  readonly sequences = this.gauge("tessera_worker_sequences", "Sequences held");
  readonly embeddings = this.gauge("tessera_worker_embeddings", "Tiles whose embeddings are held");
  readonly resident = this.gauge("tessera_worker_resident_bytes", "Resident memory of the process");

  constructor() {
    this.rank.set(-1);
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
