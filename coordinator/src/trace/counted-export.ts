/** Between the spans of requests and the exporter: a bounded queue, and a count of what became of each span. */
import type { Context } from "@opentelemetry/api";
import { ExportResultCode, type ExportResult } from "@opentelemetry/core";
import type { ReadableSpan, Span, SpanExporter, SpanProcessor } from "@opentelemetry/sdk-trace";

export type SpanFate = "exported" | "failed" | "dropped";

export interface SpanCount {
  (fate: SpanFate, count: number): void;
}

/** Spans ended and not answered for; beyond `limit` new ones are dropped. */
export class SpanRoom {
  private taken = 0;
  constructor(
    private readonly limit: number,
    private readonly count: SpanCount,
  ) {}

  /** False: dropped, and counted. */
  take(): boolean {
    if (this.taken >= this.limit) {
      this.count("dropped", 1);
      return false;
    }
    this.taken++;
    return true;
  }
  leave(fate: SpanFate, spans: number): void {
    this.taken -= spans;
    this.count(fate, spans);
  }
}

export function countedExporter(inner: SpanExporter, room: SpanRoom): SpanExporter {
  return {
    export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
      inner.export(spans, (result) => {
        room.leave(result.code === ExportResultCode.SUCCESS ? "exported" : "failed", spans.length);
        done(result);
      });
    },
    shutdown: () => inner.shutdown(),
    forceFlush: () => inner.forceFlush?.() ?? Promise.resolve(),
  };
}

export function boundedProcessor(inner: SpanProcessor, room: SpanRoom): SpanProcessor {
  return {
    onStart: (span: Span, parent: Context) => inner.onStart(span, parent),
    onEnd(span: ReadableSpan): void {
      if (room.take()) inner.onEnd(span);
    },
    forceFlush: () => inner.forceFlush(),
    shutdown: () => inner.shutdown(),
  };
}
