/** Tracing over OTLP. Loaded only when an endpoint is configured. */
import {
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
  type Attributes,
  type Context,
  type Span,
  type TextMapGetter,
  type Tracer,
} from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { boundedProcessor, countedExporter, SpanRoom, type SpanCount } from "./counted-export.js";
import type { RequestTrace, TraceCarrier, TraceOutcome, Tracing } from "./trace.js";

/** Spans that wait for the collector. */
const MAX_QUEUED_SPANS = 4096;
const MAX_BATCH_SPANS = 512;
const BATCH_DELAY_MS = 1000;
const EXPORT_DEADLINE_MS = 5000;
/** Of sending what is left when the process ends. */
const CLOSE_DEADLINE_MS = 2000;

export interface OtlpOptions {
  /** http://host:port of the collector; /v1/traces is added. */
  endpoint: string;
  /** `service.name` and version. */
  service: { name: string; version: string };
  /** The served model's name. */
  model: string;
  count: SpanCount;
}

const CARRIER: TextMapGetter<TraceCarrier> = {
  keys: (carrier) => Object.keys(carrier),
  get: (carrier, key) => carrier[key],
};

/** `performance.now()` → milliseconds since 1970. */
function wall(ms: number): number {
  return performance.timeOrigin + ms;
}

function attributesOf(outcome: TraceOutcome): Attributes {
  const { finishReasons } = outcome;
  return {
    "gen_ai.request.id": outcome.requestId,
    "gen_ai.response.id": outcome.requestId,
    "gen_ai.request.max_tokens": outcome.maxTokens,
    "gen_ai.request.choice.count": outcome.choiceCount,
    "gen_ai.usage.input_tokens": outcome.promptTokens,
    "gen_ai.usage.output_tokens": outcome.completionTokens,
    "gen_ai.response.finish_reasons": finishReasons === undefined ? undefined : [...finishReasons],
    "tessera.request.tiles": outcome.tiles,
    "error.type": outcome.error,
  };
}

class OtlpTrace implements RequestTrace {
  readonly traceId: string | undefined;
  private readonly context: Context;

  constructor(
    private readonly tracer: Tracer,
    private readonly span: Span,
    parent: Context,
  ) {
    const { traceId, traceFlags } = span.spanContext();
    this.traceId = (traceFlags & TraceFlags.SAMPLED) === 0 ? undefined : traceId;
    this.context = trace.setSpan(parent, span);
  }

  phase: RequestTrace["phase"] = (name, { startMs, endMs }) => {
    this.tracer.startSpan(name, { startTime: wall(startMs) }, this.context).end(wall(endMs));
  };

  end: RequestTrace["end"] = (outcome) => {
    this.span.setAttributes(attributesOf(outcome));
    if (outcome.error !== undefined)
      this.span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.error });
    this.span.end(wall(outcome.endMs));
  };
}

export function openOtlp(options: OtlpOptions): Tracing {
  const { endpoint, service, model } = options;
  const room = new SpanRoom(MAX_QUEUED_SPANS, options.count);
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, "")}/v1/traces`,
    timeoutMillis: EXPORT_DEADLINE_MS,
  });
  const batches = new BatchSpanProcessor({
    exporter: countedExporter(exporter, room),
    maxQueueSize: MAX_QUEUED_SPANS,
    maxExportBatchSize: MAX_BATCH_SPANS,
    scheduledDelayMillis: BATCH_DELAY_MS,
    // Longer than the exporter's own deadline, which tells what became of the spans.
    exportTimeoutMillis: 2 * EXPORT_DEADLINE_MS,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      "service.name": service.name,
      "service.version": service.version,
    }),
    spanProcessors: [boundedProcessor(batches, room)],
  });
  const tracer = provider.getTracer(service.name, service.version);
  const propagator = new W3CTraceContextPropagator();
  const attributes: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": service.name,
    "gen_ai.request.model": model,
  };
  return {
    request(carrier, startMs) {
      const parent = propagator.extract(ROOT_CONTEXT, carrier, CARRIER);
      const start = { kind: SpanKind.SERVER, startTime: wall(startMs), attributes };
      return new OtlpTrace(tracer, tracer.startSpan(`chat ${model}`, start, parent), parent);
    },
    async close() {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_DEADLINE_MS);
      });
      // A collector that is gone is counted, and nobody else's matter.
      await Promise.race([provider.shutdown().catch(() => undefined), late]);
      clearTimeout(timer);
    },
  };
}
