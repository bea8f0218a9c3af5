/** Settings of a coordinator; checked at start, all problems reported at once. */
import { parseAddress, ServeError } from "@tessera/proto";
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
  /** grpc.reflection beside the services. */
  reflection: boolean;
  logLevel: string;
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
  const { listen, healthListen } = options;
  attempt(() => parseAddress(listen, "listen"));
  if (healthListen !== undefined) attempt(() => parseAddress(healthListen, "health-listen"));
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
