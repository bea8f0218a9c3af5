/** Settings of a coordinator; checked at start, all problems reported at once. */
import { ServeError } from "@tessera/proto";
import type { ChatTemplate } from "../request/prompt.js";

export interface CoordinatorOptions {
  modelDir: string;
  /** host:port; port 0 takes a free one. */
  listen: string;
  healthListen?: string | undefined;
  /** Addresses by rank. */
  workers: string[];
  maxModelLen?: number | undefined;
  /** Of each rank. */
  cacheMemoryBytes?: number | undefined;
  kvType: "f32" | "bf16";
  wireType: "f32" | "bf16";
  servedModelName?: string | undefined;
  chatTemplate: ChatTemplate;
  maxBatchedTokens?: number | undefined;
  maxSequences?: number | undefined;
  maxRequests: number;
  stepDeadlineMs: number;
  reflection: boolean;
  logLevel: string;
}

export function parseAddress(text: string, field: string): { host: string; port: number } {
  const at = text.lastIndexOf(":");
  const port = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new ServeError("CONFIGURATION", `${field}: ${JSON.stringify(text)} is no host:port`);
  return { host: text.slice(0, at), port };
}

export function checkOptions(options: CoordinatorOptions): void {
  const problems: string[] = [];
  const attempt = (work: () => void) => {
    try {
      work();
    } catch (error) {
      problems.push(ServeError.from(error).message);
    }
  };
  attempt(() => parseAddress(options.listen, "listen"));
  for (const address of options.workers) attempt(() => parseAddress(address, "workers"));
  const whole = {
    maxBatchedTokens: options.maxBatchedTokens,
    maxSequences: options.maxSequences,
    maxRequests: options.maxRequests,
    stepDeadlineMs: options.stepDeadlineMs,
  };
  for (const [name, value] of Object.entries(whole))
    if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
      problems.push(`${name}: ${value}, must be a whole number above 0`);
  if (problems.length > 0) throw new ServeError("CONFIGURATION", problems.join("; "));
}
