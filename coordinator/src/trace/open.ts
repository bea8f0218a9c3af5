/** Tracing as it is configured: without an endpoint nothing of OpenTelemetry is loaded. */
import type { OtlpOptions } from "./otlp.js";
import { NO_TRACING, type Tracing } from "./trace.js";

export async function openTracing(
  options: Omit<OtlpOptions, "endpoint"> & { endpoint: string | undefined },
): Promise<Tracing> {
  const { endpoint } = options;
  if (endpoint === undefined) return NO_TRACING;
  const { openOtlp } = await import("./otlp.js");
  return openOtlp({ ...options, endpoint });
}
