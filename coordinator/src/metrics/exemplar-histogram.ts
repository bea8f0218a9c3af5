/** A histogram whose observations may name the request they are of. */
import { Histogram, Registry, type OpenMetricsContentType } from "prom-client";

export type OpenRegistry = Registry<OpenMetricsContentType>;

/** Exemplars need this kind from the start; its text in Prometheus' format is `prometheusText`'s. */
export function openRegistry(): OpenRegistry {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  return registry;
}

/** Labels and values of one have 128 characters at most. */
export interface Exemplar {
  request_id: string;
  trace_id?: string;
}

export class ExemplarHistogram {
  private readonly histogram: Histogram;

  constructor(of: { name: string; help: string; buckets: number[]; registry: OpenRegistry }) {
    const { name, help, buckets, registry } = of;
    this.histogram = new Histogram({
      name,
      help,
      buckets,
      registers: [registry],
      enableExemplars: true,
    });
  }

  observe(value: number, exemplar?: Exemplar): void {
    this.histogram.observe({ labels: {}, value, exemplarLabels: { ...exemplar } });
  }
}
